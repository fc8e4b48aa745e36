//! Redis, which tells of what is published: the deployment publishes each mount's newest position there.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use redis::Client;
use syncline_spin_wire as wire;
use tokio::time::sleep;

use super::GatewayError;
use super::poll::Wakes;

/// The pause after a failure, which doubles, and the longest.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Wakes whoever waits for publications, as long as the server can be reached; else it is said that it cannot.
pub(super) fn follow(address: &str, wakes: Arc<Wakes>) -> Result<impl Future<Output = ()> + use<>, GatewayError> {
    // Its error may quote the address, which may hold a password.
    let unfit = |_| GatewayError::Setting { key: "redis", message: "must be an address such as redis://127.0.0.1:6379".into() };
    let client = Client::open(address).map_err(unfit)?;
    Ok(async move {
        let mut pause = PAUSE_MIN;
        loop {
            match listen(&client, &wakes, &mut pause).await {
                Ok(()) => tracing::warn!("Redis has ended the subscription: the deployment is polled until it is back"),
                Err(error) => tracing::warn!(%error, "Redis cannot be listened to: the deployment is polled until it can"),
            }
            wakes.set_redis(false);
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    })
}

async fn listen(client: &Client, wakes: &Wakes, pause: &mut Duration) -> redis::RedisResult<()> {
    let mut subscription = client.get_async_pubsub().await?;
    subscription.psubscribe(format!("{}*", wire::REDIS_CHANNEL_PREFIX)).await?;
    *pause = PAUSE_MIN;
    wakes.set_redis(true);
    let mut messages = subscription.on_message();
    while messages.next().await.is_some() {
        wakes.wake();
    }
    Ok(())
}
