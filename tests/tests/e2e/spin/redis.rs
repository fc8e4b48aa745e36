//! Redis, with a double of a server.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::{Probe, fails};

/// What a server keeps, and what was published.
#[derive(Default)]
struct Kept {
    texts: BTreeMap<String, String>,
    sets: BTreeMap<String, BTreeSet<String>>,
    published: Vec<(String, String)>,
}

/// Starts a double that lives as long as the test.
async fn serve() -> (SocketAddr, Arc<Mutex<Kept>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let (address, kept) = (listener.local_addr().expect("it has one"), Arc::<Mutex<Kept>>::default());
    let shared = kept.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, shared.clone()));
        }
    });
    (address, kept)
}

/// Answers commands until the client goes.
async fn answer(stream: TcpStream, kept: Arc<Mutex<Kept>>) {
    let mut stream = BufReader::new(stream);
    while let Some(command) = command(&mut stream).await {
        let reply = kept.lock().run(&command);
        if stream.write_all(reply.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// One command, an array of texts; none when the client has gone.
async fn command(stream: &mut BufReader<TcpStream>) -> Option<Vec<String>> {
    async fn number(stream: &mut BufReader<TcpStream>) -> Option<usize> {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        line.trim_end().get(1..)?.parse().ok()
    }
    let mut words = Vec::new();
    for _ in 0..number(stream).await? {
        let mut word = vec![0; number(stream).await? + 2];
        stream.read_exact(&mut word).await.ok()?;
        word.truncate(word.len() - 2);
        words.push(String::from_utf8(word).ok()?);
    }
    Some(words)
}

fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

impl Kept {
    fn run(&mut self, command: &[String]) -> String {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        match words[..] {
            ["GET", key] => self.texts.get(key).map_or("$-1\r\n".into(), |text| bulk(text)),
            ["SET", key, value] => {
                self.texts.insert(key.into(), value.into());
                "+OK\r\n".into()
            }
            ["INCRBY", key, by] => {
                let text = self.texts.entry(key.into()).or_insert_with(|| "0".into());
                let Ok(number) = text.parse::<i64>() else { return "-ERR value is not an integer or out of range\r\n".into() };
                *text = (number + by.parse::<i64>().expect("a number")).to_string();
                format!(":{text}\r\n")
            }
            ["DEL", ref keys @ ..] => format!(":{}\r\n", keys.iter().filter(|key| self.texts.remove(**key).is_some()).count()),
            ["SADD", key, ref values @ ..] => {
                let set = self.sets.entry(key.into()).or_default();
                format!(":{}\r\n", values.iter().filter(|value| set.insert((**value).into())).count())
            }
            ["SREM", key, ref values @ ..] => {
                let set = self.sets.entry(key.into()).or_default();
                format!(":{}\r\n", values.iter().filter(|value| set.remove(**value)).count())
            }
            ["SMEMBERS", key] => {
                let set = self.sets.entry(key.into()).or_default();
                format!("*{}\r\n{}", set.len(), set.iter().map(|value| bulk(value)).collect::<String>())
            }
            ["PUBLISH", channel, message] => {
                self.published.push((channel.into(), message.into()));
                ":0\r\n".into()
            }
            ["NESTED"] => "*3\r\n*2\r\n$1\r\na\r\n:1\r\n*1\r\n*1\r\n$1\r\nb\r\n$-1\r\n".into(),
            ["CLIENT", ..] => "+OK\r\n".into(),
            _ => format!("-ERR unknown command {words:?}\r\n"),
        }
    }
}

#[tokio::test]
async fn commands_go_to_the_server_and_lists_come_back_flat() {
    let (address, kept) = serve().await;
    let probe = Probe::start().await;
    let step = |what: &str, key: &str| json!({"do": format!("redis-{what}"), "address": format!("redis://{address}"), "key": key, "value": "7", "values": ["x", "y"], "command": key});
    let steps = json!([
        step("get", "k"),
        step("set", "k"),
        step("incr", "k"),
        step("get", "k"),
        step("sadd", "s"),
        step("smembers", "s"),
        step("srem", "s"),
        step("del", "k"),
        step("publish", "channel"),
    ]);
    assert_eq!(probe.run(steps).await, *json!([null, null, 8, "8", 2, ["x", "y"], 2, 0, null]).as_array().expect("a list"));
    assert_eq!(kept.lock().published, [("channel".to_owned(), "7".to_owned())]);
    let mut nested = step("execute", "NESTED");
    nested["values"] = json!([]);
    let results = probe.run(json!([nested, step("execute", "UNKNOWN")])).await;
    let flat: Vec<String> = results[0].as_array().expect("a list").iter().map(Value::to_string).collect();
    assert_eq!(flat.len(), 4, "{flat:?}");
    assert!(flat[0].contains("97") && flat[1].contains('1') && flat[2].contains("98") && flat[3].contains("Nil"), "{flat:?}");
    fails(&results[1], "unknown command");
}

#[tokio::test]
async fn what_is_no_address_and_who_does_not_answer_are_told_apart() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free").local_addr().expect("it has one");
    let probe = Probe::start().await;
    let get = |address: &str| json!({"do": "redis-get", "address": address, "key": "k"});
    let results = probe.run(json!([get("no address"), get(&format!("redis://{nobody}"))])).await;
    fails(&results[0], "InvalidAddress");
    fails(&results[1], "Other");
}
