//! Which `Host` a request may name.
//!
//! A page of any site may have its own name point to 127.0.0.1 ("DNS rebinding") and would then pass for a page of this
//! server. On a loopback address only names of the machine itself are therefore served.

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, Version, header};

use super::error::ApiError;
use super::state::State;
use crate::show;

/// Checks the host that a request names.
///
/// # Errors
/// Status 400 if a request of HTTP/1.1 has not exactly one `Host`; status 403 if the server listens on a loopback
/// address and the host is neither `localhost`, nor a loopback address, nor one of `allowed_hosts`.
pub fn check(request: &Request, state: &State) -> Result<(), ApiError> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let (first, second) = (hosts.next(), hosts.next());
    if second.is_some() || (first.is_none() && request.version() >= Version::HTTP_11) {
        return Err(ApiError::bad("expected one Host header").with_code("invalid_host"));
    }
    if state.loopback.get() != Some(&true) {
        return Ok(());
    }
    let of_header = first.map(|host| HeaderValue::to_str(host).unwrap_or_default());
    let of_target = request.uri().authority().map(|authority| authority.as_str());
    match of_header.into_iter().chain(of_target).find(|host| !is_allowed(host, &state.options.allowed_hosts)) {
        None => Ok(()),
        Some(host) => {
            let message = format!(
                "the host {} is not served: expected localhost, 127.0.0.1, [::1] or one of allowed_hosts (--allow-host)",
                show::quoted(host)
            );
            Err(ApiError::new(StatusCode::FORBIDDEN, message).with_code("host_not_allowed"))
        }
    }
}

fn is_allowed(host: &str, names: &[String]) -> bool {
    let name = without_port(host);
    let address: Option<IpAddr> = name.trim_start_matches('[').trim_end_matches(']').parse().ok();
    if address.is_some_and(|address| address.to_canonical().is_loopback()) {
        return true;
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    name.eq_ignore_ascii_case("localhost")
        || names.iter().any(|allowed| allowed == "*" || without_port(allowed).eq_ignore_ascii_case(name))
}

/// A host without its port.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_and_those_allowed() {
        let names = vec!["box.example".to_string()];
        for host in [
            "localhost",
            "LOCALHOST:8000",
            "localhost.",
            "127.0.0.1",
            "127.0.0.1:80",
            "127.8.8.8",
            "[::1]",
            "[::1]:9",
            "[::ffff:127.0.0.1]:9",
            "box.example",
            "Box.Example:8000",
        ] {
            assert!(is_allowed(host, &names), "{host}");
        }
        for host in [
            "",
            ":80",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "[::2]:1",
            "evil.example:127",
            "localhost@evil.example",
            "box.example.evil",
            "127.0.0.1:80:90",
        ] {
            assert!(!is_allowed(host, &names), "{host}");
        }
        assert!(is_allowed("any.example", &["*".to_string()]));
    }
}
