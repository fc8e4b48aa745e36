//! Endpoints of gateways.
use crate::answers;
use crate::bindings::syncline::host::types::RequestHead;
use crate::front::{Deployment, Front};
use crate::ports::{Clock, Exchange};

/// Where their paths begin.
pub(crate) const PREFIX: &str = "/.syncline/gateway/";

impl<C: Clock> Front<C> {
    pub(crate) async fn of_gateway(&self, _deployment: &Deployment, _head: &RequestHead, exchange: &mut impl Exchange) {
        answers::send_status(exchange, 404).await;
    }
}
