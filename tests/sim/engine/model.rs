//! What a protocol brings to the simulator: its clients, and an oracle that judges what they were told.

use std::path::Path;

use rand::rngs::StdRng;
use syncline::runtime::MountSettings;
use syncline::runtime::in_process::ConnectRequest;
use syncline::runtime::queue::Frame;
use syncline::storage::Storage;

/// A protocol in a run: one mount, some clients, an oracle.
pub trait ProtocolModel {
    /// The mount.
    fn mount(&self) -> MountSettings;

    /// Its clients.
    fn clients(&mut self) -> Vec<Box<dyn ClientModel>>;

    /// Whether the data is what it must be, at quiescence: faults are over, everybody is connected and has finished, and
    /// the server was stopped in order. One line a violation. `data` is the data folder.
    fn check(&self, data: &Path, storage: &Storage) -> Vec<String>;
}

/// A client: what it sends, and what it makes of what it is told. It lives as long as the run; connections come and go.
pub trait ClientModel: Send {
    /// It connects: what it asks for.
    fn connect(&mut self, line: &mut Line<'_>) -> ConnectRequest;

    /// A frame arrived.
    fn received(&mut self, frame: &Frame, line: &mut Line<'_>);

    /// Time to do something, if it wants to.
    fn act(&mut self, line: &mut Line<'_>);

    /// The connection is gone: with the close code of the server, or cut off.
    fn disconnected(&mut self, code: Option<u16>, line: &mut Line<'_>);

    /// Whether it has nothing left to do: it is connected and waits for no answer.
    fn is_settled(&self) -> bool;
}

/// The client's end of its line.
pub struct Line<'a> {
    /// Random numbers of this client.
    pub random: &'a mut StdRng,
    /// No more faults, and nothing new to begin: finish.
    pub calm: bool,
    /// What it does, in order.
    pub commands: Vec<Command>,
}

/// What a client does.
#[derive(Debug)]
pub enum Command {
    /// Sends a frame.
    Send(Frame),
    /// Closes.
    Leave,
    /// Puts something down in the trace.
    Note(String),
    /// Says that it was told what must not be.
    Violation(String),
}

impl Line<'_> {
    /// Sends a text frame.
    pub fn send_text(&mut self, text: String) {
        self.commands.push(Command::Send(Frame::Text(text.into())));
    }

    /// Closes the connection, behind what was sent.
    pub fn leave(&mut self) {
        self.commands.push(Command::Leave);
    }

    /// Puts something down in the trace.
    pub fn note(&mut self, what: String) {
        self.commands.push(Command::Note(what));
    }

    /// Says that it was told what must not be.
    pub fn violation(&mut self, what: String) {
        self.commands.push(Command::Violation(what));
    }
}
