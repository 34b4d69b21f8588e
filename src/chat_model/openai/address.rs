//! The address of a server.

use ureq::http::Uri;

use crate::chat_model::error::{ChatModelError, Result};

/// Where requests are sent.
pub(super) struct Address {
    /// As it is asked for.
    pub url: String,
    /// As it is shown: without the user and the password.
    pub shown: String,
}

impl Address {
    /// The address of the chat completions below a base.
    pub fn new(base_url: &str) -> Result<Self> {
        let refused = |expected| ChatModelError::Option { name: "base_url", value: without_user(base_url), expected };
        let uri: Option<Uri> = base_url.parse().ok();
        let Some((uri, host)) = uri.as_ref().and_then(|uri| Some((uri, uri.host()?))) else {
            return Err(refused(match has_port(base_url) {
                true => "an address that begins with http:// or https://, with a port from 1 to 65535",
                false => "an address that begins with http:// or https://",
            }));
        };
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(refused("an address that begins with http:// or https://"));
        }
        // What the parser can't read as a port, it passes over.
        let port =
            uri.authority().and_then(|authority| authority.as_str().rsplit_once(host)).map_or("", |(_, end)| end);
        let valid = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
        if !port.is_empty() && !port.strip_prefix(':').is_some_and(valid) {
            return Err(refused("a port from 1 to 65535"));
        }
        if base_url.contains(['?', '#']) {
            return Err(refused("an address that a path can be appended to, without ? and #"));
        }
        let url = format!("{}/chat/completions", base_url.trim_end_matches('/'));
        Ok(Self { shown: without_user(&url), url })
    }
}

/// An address without what precedes the `@`; the address need not be valid.
fn without_user(url: &str) -> String {
    let Some((before, rest)) = url.rsplit_once('@') else { return url.to_string() };
    match before.split_once("://") {
        Some((scheme, _)) => format!("{scheme}://{rest}"),
        None => rest.to_string(),
    }
}

/// Whether something like a port follows the host of an address that can't be read.
fn has_port(url: &str) -> bool {
    let host = url.split_once("://").map_or("", |(_, rest)| rest);
    host.split('/').next().is_some_and(|host| host.contains(':'))
}
