//! `POST /query` (section 9).

use super::refusal::Refusal;
use super::{Admitted, Answer};
use crate::plasma::Call;
use crate::registry::Request;

/// Answers a query.
pub fn query(_call: &Call<'_>, _request: &Request, _admitted: &Admitted) -> Answer {
    Err(Refusal::NotFound)
}
