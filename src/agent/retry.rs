//! What the model is told about a call that could not be read.

use crate::chat::{Message, Role};

/// How such a message begins.
const HEAD: &str = "No tool was called, for the call in your last answer could not be read: ";

/// The message about a call.
pub(super) fn note(error: &str) -> String {
    format!(
        "{HEAD}{error}. Write the whole call again, exactly in the format of the instructions, or answer without one."
    )
}

/// What stands behind the results of an answer whose other calls were made, about one that could not be read.
pub(super) fn unread_call(error: &str) -> String {
    format!(
        "Error: another call of the same answer could not be read, and was not made: {error}. If it is still needed, write \
         that call again, exactly in the format of the instructions."
    )
}

/// Whether a message is one about a call, and not a person's.
pub(super) fn is_note(message: &Message) -> bool {
    message.role == Role::User && message.content.starts_with(HEAD)
}
