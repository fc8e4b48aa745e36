//! Many at once.

use std::process::Stdio;

use syncline_tests::process::command;
use syncline_tests::scale;
use tokio::process::Command;

use super::{Honest, Victim, raw_member};
use crate::raw::{RawConnection, get};

/// Lets this process have as many sockets as it may.
fn raise_descriptor_limit() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("a limit may be raised to its maximum");
    maximum.unwrap_or(u64::MAX)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn thousands_of_half_open_sockets_cost_little_and_stop_nobody() {
    let descriptors = raise_descriptor_limit();
    let count = (1500 * u64::from(scale())).min(10_000).min(descriptors / 2);
    let victim = Victim::start("[limits]\nconnections = 0", "").await;
    let mut honest = Honest::join(victim.address()).await;
    let before = victim.resident_bytes();
    let mut sockets = Vec::new();
    for number in 0..count {
        let mut socket = RawConnection::connect(victim.address()).await;
        match number % 3 {
            0 => {}
            1 => socket.send(b"GET /secsync/doc?sess").await,
            _ => socket.send(b"GET /secsync/doc HTTP/1.1\r\nhost: t\r\nupgrade: websocket\r\nx-").await,
        }
        sockets.push(socket);
        if number % 100 == 0 {
            honest.is_served().await;
        }
    }
    honest.lost_nothing().await;
    let each = victim.resident_bytes().saturating_sub(before) / count;
    println!("{each} bytes for each of {count} half-open sockets");
    assert!(each < 32 << 10, "{each} bytes for each of {count} half-open sockets");
    drop(sockets);
    honest.lost_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn idle_members_cost_at_most_twenty_kibibytes_each() {
    let descriptors = raise_descriptor_limit();
    let count = (1000 * u64::from(scale())).min(10_000).min(descriptors / 2);
    let victim = Victim::start("[limits]\nconnections = 0", "").await;
    let mut honest = Honest::join(victim.address()).await;
    // What the first connections need once, instances of the component above all, is not counted.
    let mut members = Vec::new();
    for number in 0..100 {
        members.push(raw_member(victim.address(), &format!("doc-{}", number % 10)).await);
    }
    let before = victim.resident_bytes();
    for number in 0..count {
        members.push(raw_member(victim.address(), &format!("doc-{}", number % 10)).await);
    }
    honest.lost_nothing().await;
    let each = victim.resident_bytes().saturating_sub(before) / count;
    println!("{each} bytes for each of {count} idle members");
    assert!(each <= 20 << 10, "{each} bytes for each of {count} idle members");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn with_its_file_descriptors_used_up_the_process_serves_who_is_there_and_then_newcomers_again() {
    let bounded = |arguments: &[&str]| {
        let plain = command(arguments);
        let mut bounded = Command::new("sh");
        bounded.env_clear().envs(std::env::vars().filter(|(name, _)| !name.starts_with("SYNCLINE_"))).kill_on_drop(true);
        bounded.args(["-c", "ulimit -n 96 && exec \"$0\" \"$@\""]).arg(plain.as_std().get_program()).args(plain.as_std().get_args());
        bounded.stdin(Stdio::null());
        bounded
    };
    let victim = Victim::start_by("[limits]\nconnections = 0", "", bounded).await;
    let mut honest = Honest::join(victim.address()).await;
    let mut crowd = Vec::new();
    for _ in 0..200 {
        crowd.push(RawConnection::connect(victim.address()).await);
        honest.is_served().await;
    }
    drop(crowd);
    crate::support::eventually("room for newcomers", || async {
        let mut connection = RawConnection::try_connect(victim.address()).await?;
        connection.try_send(b"GET /healthz HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n").await;
        connection.everything().await.starts_with("HTTP/1.1 200").then_some(())
    })
    .await;
    assert_eq!(get(victim.address(), "/readyz").await.status, 200);
    honest.lost_nothing().await;
}
