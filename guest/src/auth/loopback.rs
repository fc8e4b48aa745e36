//! Who is on this machine and means it. Without credentials a page of anywhere, in a browser on this machine, could speak for its user:
//! so neither a name that was bent to this address (DNS rebinding) nor a page of a stranger is let in.

use std::net::IpAddr;

use super::Denied;
use crate::cors::Cors;
use crate::http::header_text;
use crate::imports::RequestHead;

/// Lets in whoever comes from this machine, asks for it by a name of it, and is no page of a stranger.
pub fn check(head: &RequestHead, cors: &Cors) -> Result<(), Denied> {
    if !head.remote_address.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback()) {
        return Err(Denied::refused("only this machine is let in"));
    }
    let host = header_text(head, "host");
    if host.is_some_and(|host| !is_own_name(name_of(host))) {
        return Err(Denied::refused("the Host must be localhost or a loopback address"));
    }
    // Browsers say so with every request that could do harm, and pages cannot leave it out.
    let is_own = |origin: &str| host.is_some_and(|host| origin.split_once("://").is_some_and(|(_, own)| own.eq_ignore_ascii_case(host)));
    match header_text(head, "origin") {
        Some(origin) if !is_own(origin) && !cors.allows(origin) => {
            Err(Denied::refused("pages of this origin are not let in: see cors.origins"))
        }
        _ => Ok(()),
    }
}

/// The name or address in a `Host`, without brackets and port.
fn name_of(host: &str) -> &str {
    let name = host.strip_prefix('[').map_or_else(|| host.split(':').next(), |address| address.split(']').next());
    name.unwrap_or_default()
}

/// Whether a name or address is one of this machine. Browsers never look up names that end in `localhost`.
fn is_own_name(name: &str) -> bool {
    match name.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            name == "localhost" || name.ends_with(".localhost")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_this_machine_by_its_names_and_addresses() {
        for host in ["localhost", "LOCALHOST:8787", "app.localhost:1", "localhost.", "127.0.0.1", "127.9.9.9:80", "[::1]:8787", "[::1]"] {
            assert!(is_own_name(name_of(host)), "{host}");
        }
        for host in
            ["", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "192.168.0.1", "[2001:db8::1]:80", "notlocalhost"]
        {
            assert!(!is_own_name(name_of(host)), "{host}");
        }
    }
}
