//! Who sent a request: what proxies that are believed say of it.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use crate::bindings::syncline::host::types::Header;

/// Addresses with a common beginning: `10.0.0.0/8`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix_bits: u32,
}

/// A text that is no address and no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither an address nor a network such as 10.0.0.0/8")]
pub struct NotANetwork(String);

impl FromStr for Network {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        let refused = || NotANetwork(text.to_owned());
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_| refused())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix_bits = prefix.map_or(Ok(bits), str::parse).map_err(|_| refused())?;
        if prefix_bits > bits { Err(refused()) } else { Ok(Self { address, prefix_bits }) }
    }
}

impl Network {
    /// Whether an address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        let same = |ours: u128, theirs: u128, bits: u32| {
            let shift = bits - self.prefix_bits;
            ours.checked_shr(shift).unwrap_or(0) == theirs.checked_shr(shift).unwrap_or(0)
        };
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => same(ours.to_bits().into(), theirs.to_bits().into(), 32),
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => same(ours.to_bits(), theirs.to_bits(), 128),
            _ => false,
        }
    }
}

/// Who sent a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Client {
    /// Its address; of the client itself where a trusted proxy says so. Empty where Spin says none.
    pub(crate) address: String,
    /// Whether it came over TLS, here or at a trusted proxy.
    pub(crate) secure: bool,
}

/// Who is behind a peer, by what the headers say if it is a trusted proxy (`trusted`: it is one, whatever its address).
pub(crate) fn client(peer: &str, secure: bool, headers: &[Header], proxies: &[Network], trusted: bool) -> Client {
    let peer = hop_address(peer);
    let is_trusted = |address: IpAddr| proxies.iter().any(|network| network.contains(address));
    let text = |address: Option<IpAddr>| address.map_or_else(String::new, |address| address.to_string());
    if !trusted && !peer.is_some_and(is_trusted) {
        return Client { address: text(peer), secure };
    }
    let secure = values(headers, "x-forwarded-proto").pop().map_or(secure, |proto| proto == "https");
    let mut address = peer;
    // From the right, each hop was written by the one after it: the first that is not trusted is the client.
    for hop in values(headers, "x-forwarded-for").into_iter().rev() {
        let Some(hop) = hop_address(hop) else { break };
        address = Some(hop);
        if !is_trusted(hop) {
            break;
        }
    }
    Client { address: text(address), secure }
}

fn values<'a>(headers: &'a [Header], name: &'a str) -> Vec<&'a str> {
    let lines = headers.iter().filter(|header| header.name == name);
    // What is no text hides what stands before it, as any hop that cannot be read does.
    lines.flat_map(|line| std::str::from_utf8(&line.value).unwrap_or("?").split(',')).map(str::trim).collect()
}

/// An address as proxies write it, with or without a port.
fn hop_address(hop: &str) -> Option<IpAddr> {
    let address = hop.parse().or_else(|_| hop.parse::<SocketAddr>().map(|address| address.ip()));
    let bracketed = || hop.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    address.ok().or_else(bracketed).map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(peer: &str, headers: &[(&str, &str)], trusted: bool) -> Client {
        let header = |(name, value): &(&str, &str)| Header { name: (*name).to_owned(), value: value.as_bytes().to_vec() };
        let headers: Vec<Header> = headers.iter().map(header).collect();
        client(peer, false, &headers, &["127.0.0.1".parse().unwrap(), "10.0.0.0/8".parse().unwrap()], trusted)
    }

    #[test]
    fn only_trusted_proxies_are_believed_and_only_as_far_as_they_are() {
        let address = |peer: &str, hops: &str| of(peer, &[("x-forwarded-for", hops)], false).address;
        assert_eq!(address("9.9.9.9:1", "1.1.1.1"), "9.9.9.9");
        assert_eq!(address("127.0.0.1:1", "1.1.1.1"), "1.1.1.1");
        assert_eq!(address("127.0.0.1:1", "6.6.6.6, 1.1.1.1, 10.3.3.3"), "1.1.1.1");
        assert_eq!(address("127.0.0.1:1", "1.1.1.1, garbage"), "127.0.0.1");
        assert_eq!(address("[::ffff:127.0.0.1]:1", "[2001:db8::1]:4711"), "2001:db8::1");
        assert_eq!(address("", "1.1.1.1"), "");
    }

    #[test]
    fn a_gateway_is_believed_wherever_it_is() {
        let through = of("9.9.9.9:1", &[("x-forwarded-for", "1.1.1.1"), ("x-forwarded-proto", "https")], true);
        assert_eq!(through, Client { address: "1.1.1.1".into(), secure: true });
        assert!(!of("9.9.9.9:1", &[("x-forwarded-proto", "https")], false).secure);
    }
}
