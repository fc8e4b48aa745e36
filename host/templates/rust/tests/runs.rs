//! Builds the app and runs it in a server.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The component, built as the README says.
fn component() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| folder.join("target"), PathBuf::from);
    let built = Command::new(env!("CARGO")).args(["build", "--target", "wasm32-wasip2", "--release"]).current_dir(folder).status();
    assert!(built.expect("cargo can be started").success());
    folder.join(target).join("wasm32-wasip2/release/{{crate}}.wasm")
}

/// Two mounts with the app. In the second everybody on this machine is one user.
const MOUNTS: &str = r#"
[[mount]]
protocol = "secsync"
app = APP
settings = { access = "app" }

[[mount]]
protocol = "plasma"
app = APP

[mount.settings]
schemaVersion = "1"
auth = { mode = "none", allowInsecure = true, loopbackOnly = true, ctx = { userId = "me" } }

[mount.settings.schema.tables.todos]
primaryKey = ["id"]
columns = { id = { type = "text" }, done = { type = "boolean", default = false } }
"#;

/// A server with the app; ends with the test.
struct Server {
    process: Child,
    address: String,
}

impl Server {
    fn start(folder: &Path) -> Self {
        let config = folder.join("test.toml");
        let app = component();
        let mounts = MOUNTS.replace("APP", &format!("{app:?}"));
        let text = format!("listen = \"127.0.0.1:0\"\ndata = {:?}\n{mounts}", folder.join("data"));
        std::fs::write(&config, text).expect("the configuration can be written");
        let binary = std::env::var_os("SYNCLINE_BIN").unwrap_or_else(|| "syncline".into());
        let starting = Command::new(binary).args(["serve", "--config"]).arg(&config).stdout(Stdio::piped()).spawn();
        let mut process = starting.expect("syncline is on the PATH, or SYNCLINE_BIN says where it is");
        let said = process.stdout.take().expect("its output is piped");
        // It says where it listens as soon as it does.
        let mut lines = BufReader::new(said).lines();
        let address = lines.find_map(|line| Some(line.ok()?.split_once("http://")?.1.split(['/', ' ']).next()?.to_owned()));
        std::thread::spawn(move || lines.count());
        Self { process, address: address.expect("the server says where it listens") }
    }

    /// The first message that a session gets on a document.
    fn first_message(&self, session_key: &str) -> String {
        let mut socket = TcpStream::connect(&self.address).expect("the server listens");
        socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a time can be set");
        let head = format!(
            "GET /secsync/document?sessionKey={session_key}&mode=complete HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            self.address
        );
        socket.write_all(head.as_bytes()).expect("the request is sent");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(byte(&mut socket));
        }
        // A text frame of less than 126 bytes: its kind, its length, its text.
        assert_eq!(byte(&mut socket), 0x81);
        let length = byte(&mut socket);
        assert!(length < 126);
        (0..length).map(|_| char::from(byte(&mut socket))).collect()
    }
}

impl Server {
    /// The answer to a POST of JSON, head included.
    fn post(&self, path: &str, body: &str) -> String {
        let mut socket = TcpStream::connect(&self.address).expect("the server listens");
        socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a time can be set");
        let head = format!("POST {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", self.address, body.len());
        socket.write_all((head + body).as_bytes()).expect("the request is sent");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("the server answers");
        answer
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().expect("the server can be stopped");
        self.process.wait().expect("it has stopped");
    }
}

fn byte(socket: &mut TcpStream) -> u8 {
    let mut byte = [0];
    socket.read_exact(&mut byte).expect("the server answers");
    byte[0]
}

#[test]
fn the_app_says_who_may_open_a_document_and_carries_out_mutators() {
    let folder = std::env::temp_dir().join(format!("{{name}}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder can be made");
    let server = Server::start(&folder);
    assert!(server.first_message("member-1").contains(r#""type":"document""#));
    assert_eq!(server.first_message("stranger"), r#"{"type":"unauthorized"}"#);
    let mutation = |id: u32, name: &str, args: &str| format!(r#"{{"id":{id},"clientID":"c","name":"{name}","args":{args},"timestamp":0}}"#);
    let mutations = [
        mutation(1, "create-todo", r#"{"id":"t1"}"#),
        mutation(2, "complete-todo", r#"["t1"]"#),
        mutation(3, "complete-todo", r#"["t2"]"#),
    ];
    let of_group = r#""schemaVersion":"1","clientGroupID":"g""#;
    let pushed = server.post("/sync/push", &format!(r#"{{"pushVersion":1,{of_group},"mutations":[{}]}}"#, mutations.join(",")));
    assert!(pushed.contains(r#""message":"there is no such todo""#), "{pushed}");
    let pulled = server.post("/sync/pull", &format!(r#"{{"pullVersion":1,{of_group},"cookie":null}}"#));
    assert!(pulled.contains(r#"{"done":true,"id":"t1"}"#), "{pulled}");
    drop(server);
    std::fs::remove_dir_all(&folder).expect("the folder can be removed");
}
