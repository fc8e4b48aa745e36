//! The gateway in front of a double of a deployment: what its clients see, and what the deployment is asked.

mod calls;
mod double;
mod failing;
mod passing;
mod publications;
mod spin;
mod waking;

use std::net::SocketAddr;

use double::{Double, SECRET};
use syncline::gateway::{Gateway, GatewayError, GatewaySettings, Secret};
use syncline::server::ServerSettings;
use syncline_tests::eventually;
use syncline_tests::socket::{Received, Socket};
use tokio_tungstenite::tungstenite::Message;

/// A gateway in this process.
pub struct Front {
    /// Where it listens.
    pub address: SocketAddr,
    gateway: Gateway,
}

/// How a gateway in front of a double is set.
pub fn settings(double: &Double) -> GatewaySettings {
    GatewaySettings {
        upstream: double.url(),
        secret: Secret::new(SECRET),
        callback: None,
        redis: None,
        server: ServerSettings { listen: "127.0.0.1:0".into(), ..ServerSettings::default() },
    }
}

impl Front {
    /// In front of a double.
    pub async fn start(double: &Double) -> Self {
        Self::with(settings(double)).await.expect("the gateway starts")
    }

    /// As it is set, or why it does not start.
    pub async fn with(settings: GatewaySettings) -> Result<Self, GatewayError> {
        let gateway = Gateway::start(settings).await?;
        let address = gateway.server().addresses()[0];
        Ok(Self { address, gateway })
    }

    /// Stops it in order.
    pub async fn stop(self) {
        self.gateway.stop().await;
    }

    /// Connects, and takes the greeting.
    pub async fn connect(&self) -> Client {
        Client::connect(self.address).await
    }

    /// The sum of a metric.
    pub async fn metric(&self, name: &str) -> f64 {
        let text = self.gateway.handle().runtime().metrics_text().await.expect("metrics can be written");
        let lines = text.lines().filter(|line| line.starts_with(name));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Connections that it holds: those that are being made, and those that are gone and not done, too.
    pub fn held(&self) -> u64 {
        self.gateway.handle().runtime().status().iter().map(|mount| mount.connections).sum()
    }

    /// Waits until so many calls are under way.
    pub async fn calls_under_way(&self, calls: usize) {
        eventually("calls under way", async || (self.metric("syncline_gate_calls").await == calls as f64).then_some(())).await;
    }
}

/// A client of the double's protocol.
pub struct Client {
    /// Its socket.
    pub socket: Socket,
    /// As the deployment knows it.
    pub id: u64,
}

impl Client {
    /// Connects, and takes the greeting.
    pub async fn connect(address: SocketAddr) -> Self {
        let mut socket = Socket::connect(address, "/echo").await;
        let hello = text_of(socket.receive().await);
        let id = hello.split(' ').nth(1).and_then(|id| id.parse().ok()).unwrap_or_else(|| panic!("{hello:?} is no greeting"));
        Self { socket, id }
    }

    /// Sends words.
    pub async fn say(&mut self, words: &str) {
        self.socket.send_message(Message::text(words.to_owned())).await;
    }

    /// The next message.
    pub async fn hear(&mut self) -> String {
        text_of(self.socket.receive().await)
    }

    /// Says something and gives the next message.
    pub async fn ask(&mut self, words: &str) -> String {
        self.say(words).await;
        self.hear().await
    }

    /// Nothing came that was not heard: an answer is the next that comes.
    pub async fn hears_nothing(&mut self) {
        assert_eq!(self.ask("silence").await, "silence!");
    }
}

fn text_of(received: Received) -> String {
    match received {
        Received::Json(value) => value.to_string(),
        Received::Other(Message::Text(text)) => text.to_string(),
        other => panic!("a text was expected, and {other:?} came"),
    }
}
