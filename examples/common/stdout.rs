//! Whether standard output was closed when the program began.
//!
//! Rust's runtime opens `/dev/null` in the place of a closed one before `main`, so that all writing succeeds and what
//! was to be written is lost without a word. What the runtime found can only be seen before it starts.

/// Whether the program was started with a closed standard output. False where that cannot be told.
pub fn was_closed() -> bool {
    #[cfg(target_os = "linux")]
    return startup::CLOSED.load(std::sync::atomic::Ordering::Relaxed);
    #[cfg(not(target_os = "linux"))]
    false
}

#[cfg(target_os = "linux")]
mod startup {
    use std::ffi::c_int;
    use std::sync::atomic::{AtomicBool, Ordering};

    pub static CLOSED: AtomicBool = AtomicBool::new(false);

    /// `fcntl`'s command that reads a descriptor's flags.
    const F_GETFD: c_int = 1;
    const STDOUT: c_int = 1;

    unsafe extern "C" {
        fn fcntl(descriptor: c_int, command: c_int, ...) -> c_int;
    }

    extern "C" fn look() {
        // SAFETY: this command takes no further argument, and fails for a descriptor that is not open, only.
        let flags = unsafe { fcntl(STDOUT, F_GETFD) };
        CLOSED.store(flags < 0, Ordering::Relaxed);
    }

    // SAFETY: the section holds functions that the loader calls once, before the runtime starts; `look` needs nothing
    // of the runtime, and ignoring the arguments that some loaders pass is part of the calling convention.
    #[used]
    #[unsafe(link_section = ".init_array")]
    static LOOK: extern "C" fn() = look;
}
