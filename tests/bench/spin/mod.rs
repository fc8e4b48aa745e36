//! The cases of Spin: the same component between its two adapters, beside our own host; and what a gateway costs.

use crate::context::Context;
use crate::http::Http;
use crate::load::{Contestant, Loaded};
use crate::plasma::workers::{Asker, Puller, Pusher, fill};
use crate::secsync::workers::Writer;

mod servers;

use servers::{Deployment, Front};

/// Connections, each with a request in flight.
const CONNECTIONS: [usize; 2] = [1, 16];
/// Rows of a server that is pulled from.
const ROWS: u64 = 1_000;

/// Runs all cases that are asked for.
pub async fn run(context: &mut Context) {
    for connections in CONNECTIONS {
        for kind in [Kind::Plain, Kind::Pulls, Kind::Pushes] {
            let name = kind.name(connections);
            context.attempt(&name, async |context| requests(context, &name, kind, connections).await).await;
        }
    }
    for connections in CONNECTIONS {
        let name = format!("spin/frames through a gateway, {connections} in flight");
        context.attempt(&name, async |context| frames(context, &name, connections).await).await;
    }
}

/// What is asked.
#[derive(Clone, Copy)]
enum Kind {
    Plain,
    Pulls,
    Pushes,
}

impl Kind {
    fn name(self, connections: usize) -> String {
        let what = match self {
            Self::Plain => "plain requests",
            Self::Pulls => "pulls that find nothing",
            Self::Pushes => "pushes of 1 mutation",
        };
        let plural = if connections == 1 { "" } else { "s" };
        format!("spin/{what}, {connections} connection{plural}")
    }

    fn operation(self) -> &'static str {
        match self {
            Self::Plain => "an answer that rests on no data (`/sync/health`)",
            Self::Pulls => "a pull that finds nothing new",
            Self::Pushes => "a push of one mutation that makes a row, acknowledged",
        }
    }
}

async fn requests(context: &mut Context, name: &str, kind: Kind, connections: usize) -> anyhow::Result<()> {
    let disk = context.disk();
    let mut contestants: Vec<Box<dyn Contestant>> = Vec::new();
    for deployment in Deployment::compared(disk).await? {
        let server = deployment.server();
        contestants.push(match kind {
            Kind::Plain => {
                let mut askers = Vec::with_capacity(connections);
                for _ in 0..connections {
                    let request = b"GET /sync/health HTTP/1.1\r\nHost: bench\r\n\r\n".to_vec();
                    askers.push(Asker::new(Http::connect(server.address).await?, request, b"ok"));
                }
                Box::new(Loaded::new(server, askers))
            }
            Kind::Pulls => {
                fill(server, ROWS).await?;
                Box::new(Loaded::new(server, Puller::idle(server, connections).await?))
            }
            Kind::Pushes => Box::new(Loaded::new(server, Pusher::many(server, connections, 1).await?)),
        });
    }
    let case = context.compare(name, kind.operation(), contestants).await?;
    context.add(case);
    Ok(())
}

/// Updates of secsync, one document a connection: to our own host, and through a gateway to Spin. Processor time is that of the host, or of the gateway.
async fn frames(context: &mut Context, name: &str, connections: usize) -> anyhow::Result<()> {
    let disk = context.disk();
    // What is behind the gateways, for as long as they are asked.
    let mut deployments = Vec::new();
    let mut contestants: Vec<Box<dyn Contestant>> = Vec::new();
    let direct = Deployment::own(disk).await?;
    contestants.push(Box::new(Loaded::new(direct.server(), Writer::many(direct.server(), connections, connections, 0).await?)));
    for front in Front::available() {
        let deployment = Deployment::spin(disk, front).await?;
        let gateway = deployment.gateway().await?;
        let name = format!("gateway before {}", deployment.server().name);
        contestants.push(Box::new(Loaded::new(&gateway, Writer::many(&gateway, connections, connections, 0).await?).named(&name)));
        deployments.push(deployment);
    }
    let case = context
        .compare(name, "an update, acknowledged; processor time is that of our own host, or of the gateway alone", contestants)
        .await?;
    context.add(case);
    Ok(())
}
