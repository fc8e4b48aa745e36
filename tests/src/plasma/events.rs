//! A reader of server-sent events, over a stream.

use std::net::SocketAddr;

use serde_json::Value;

use crate::stream::{Chunk, Stream};

/// One event.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Event {
    /// Its name; empty where it has none.
    pub name: String,
    /// Its id; empty where it has none.
    pub id: String,
    /// Its lines of data.
    pub data: String,
}

impl Event {
    /// Its data as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }
}

/// An open stream of events.
pub struct Events {
    stream: Stream,
    text: String,
    /// Comments seen so far.
    pub comments: usize,
}

impl Events {
    /// Opens a stream; it must be one.
    pub async fn open(address: SocketAddr, target: &str, headers: &[(&str, &str)]) -> Self {
        let stream = Stream::get_with(address, target, headers).await;
        assert_eq!(stream.status, 200, "{:?}", stream.headers);
        assert!(stream.headers.contains(&("content-type".into(), "text/event-stream".into())), "{:?}", stream.headers);
        Self { stream, text: String::new(), comments: 0 }
    }

    /// The next event with data, or none at the end of the stream. Comments and `retry` are passed over.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                if let Some(event) = self.parse(&block) {
                    return Some(event);
                }
            }
            let Chunk::Text(text) = self.stream.next().await else { return None };
            self.text.push_str(&text);
        }
    }

    fn parse(&mut self, block: &str) -> Option<Event> {
        let mut event = Event::default();
        for line in block.lines() {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "" => self.comments += 1,
                "event" => event.name = value.into(),
                "id" => event.id = value.into(),
                "data" => event.data.push_str(value),
                _ => {}
            }
        }
        (!event.data.is_empty()).then_some(event)
    }

    /// The next event of a name; others are passed over.
    pub async fn next_of(&mut self, name: &str) -> Event {
        loop {
            let event = self.next().await.unwrap_or_else(|| panic!("the stream ended before {name:?}"));
            if event.name == name {
                return event;
            }
        }
    }

    /// The next poke at or above a version; its cookie.
    pub async fn poke_at(&mut self, version: u64) -> u64 {
        loop {
            let cookie = self.next_of("poke").await.json()["cookie"].as_u64().expect("a poke has a version");
            if cookie >= version {
                return cookie;
            }
        }
    }
}
