//! What a protocol brings to the simulator: its clients, and an oracle that judges what they were told.

use std::path::Path;

use rand::rngs::StdRng;
use syncline::runtime::MountSettings;
use syncline::runtime::in_process::ConnectRequest;
use syncline::runtime::queue::Frame;
use syncline::storage::Storage;

/// Looks at the data folder whenever something has become durable, before anybody is told; what is wrong, one line each.
pub type Observer = Box<dyn FnMut(&Path) -> Vec<String> + Send>;

/// A protocol in a run: one mount, some clients, an oracle.
pub trait ProtocolModel {
    /// The mount.
    fn mount(&self) -> MountSettings;

    /// Its clients.
    fn clients(&mut self) -> Vec<Box<dyn ClientModel>>;

    /// Who follows what becomes durable, if somebody does. It must not write, and not draw random numbers.
    fn observer(&self) -> Option<Observer> {
        None
    }

    /// Whether the data is what it must be, at quiescence: faults are over, everybody is connected and has finished, and
    /// the server was stopped in order. One line a violation. `data` is the data folder.
    fn check(&self, data: &Path, storage: &Storage) -> Vec<String>;
}

/// A client: what it sends, and what it makes of what it is told. It lives as long as the run; connections come and go.
pub trait ClientModel: Send {
    /// It connects: what it asks for.
    fn connect(&mut self, line: &mut Line<'_>) -> Dial;

    /// A frame arrived.
    fn received(&mut self, frame: &Frame, line: &mut Line<'_>);

    /// A request was answered; or it was not: lost on its way or on the way back, given up, or the server died.
    fn answered(&mut self, _tag: u64, _answer: Option<Answer>, line: &mut Line<'_>) {
        line.violation("an answer to a request that nobody made".into());
    }

    /// Time to do something, if it wants to.
    fn act(&mut self, line: &mut Line<'_>);

    /// Whether it acts also while it has no connection.
    fn acts_alone(&self) -> bool {
        false
    }

    /// The connection is gone, or was not made: with the close code of the server, the status of its refusal, or cut off.
    fn disconnected(&mut self, code: Option<u16>, line: &mut Line<'_>);

    /// Whether it has nothing left to do: it is connected and waits for no answer.
    fn is_settled(&self) -> bool;
}

/// What a client connects to.
#[derive(Clone, Debug)]
pub enum Dial {
    /// A WebSocket.
    Socket(ConnectRequest),
    /// A response that goes on and on; each piece of it is a frame. It takes nothing from the client.
    Stream(ConnectRequest),
    /// Nothing: it only makes requests.
    Nothing,
}

/// A request beside the connection.
#[derive(Clone, Debug)]
pub struct Request {
    /// Names it to the client.
    pub tag: u64,
    /// In upper case.
    pub method: &'static str,
    /// What it asks for.
    pub head: ConnectRequest,
    /// Its body.
    pub body: Vec<u8>,
}

/// The answer to a request.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The whole body.
    pub body: Vec<u8>,
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
    /// Makes a request, whether it is connected or not. Several may be under way.
    Request(Request),
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

    /// Makes a request.
    pub fn request(&mut self, request: Request) {
        self.commands.push(Command::Request(request));
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
