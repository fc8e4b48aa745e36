//! The same records as the logic gives them and as the app takes them: to the bindings they are types of their own.

use crate::bindings::exports::syncline::app::app as above;
use crate::bindings::syncline::app::app as below;

impl From<above::Identity> for below::Identity {
    fn from(above::Identity { user_id, roles, claims }: above::Identity) -> Self {
        Self { user_id, roles, claims }
    }
}

impl From<below::Identity> for above::Identity {
    fn from(below::Identity { user_id, roles, claims }: below::Identity) -> Self {
        Self { user_id, roles, claims }
    }
}

impl From<above::Caller> for below::Caller {
    fn from(above::Caller { mount, connection, identity, context }: above::Caller) -> Self {
        Self { mount, connection, identity: identity.into(), context }
    }
}

impl From<below::Failure> for above::Failure {
    fn from(below::Failure { code, message, retriable }: below::Failure) -> Self {
        Self { code, message, retriable }
    }
}

impl From<below::Reply> for above::Reply {
    fn from(below::Reply { value, context }: below::Reply) -> Self {
        Self { value, context }
    }
}

impl From<below::Verdict> for above::Verdict {
    fn from(verdict: below::Verdict) -> Self {
        match verdict {
            below::Verdict::Accept => Self::Accept,
            below::Verdict::Ignore => Self::Ignore,
            below::Verdict::Reject(failure) => Self::Reject(failure.into()),
        }
    }
}

impl From<above::RouteRequest> for below::RouteRequest {
    fn from(above::RouteRequest { method, path, query, headers, body }: above::RouteRequest) -> Self {
        Self { method, path, query, headers, body }
    }
}

impl From<below::RouteResponse> for above::RouteResponse {
    fn from(below::RouteResponse { status, headers, body }: below::RouteResponse) -> Self {
        Self { status, headers, body }
    }
}
