//! What the head alone decides: path, method, size, credentials, `?limit` (section 5.3, steps 1 to 4).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::refusal::Refusal;
use super::route::{ADMIN_READS, ADMIN_WRITES, BlobPart, Route};
use super::{blob, credentials, presign};
use crate::auth::{Denied, Recognised};
use crate::http::{content_length, has_known_coding, header_text, is_plain, query_parameter};
use crate::imports::RequestHead;
use crate::plasma::Call;
use crate::plasma::schema::has_zero_character;
use crate::plasma::settings::Settings;
use crate::registry::{AdmitAccept, BodyPlan, Work};
use crate::secrets;

/// The longest that a pull waits for something new.
const WAIT_MS_MAX: u64 = 60_000;

/// What was found out, so that nothing is checked twice.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Admitted {
    /// What is known of the caller.
    pub ctx: Map<String, Json>,
    /// When the credentials end, milliseconds since 1970.
    pub expires_at_ms: Option<u64>,
    /// The client group that the credentials are for.
    pub client_group_id: Option<String>,
    /// The client that they are for.
    pub client_id: Option<String>,
    /// `?limit`
    pub limit: Option<usize>,
    /// A signed URL stands for the credentials.
    pub signed: bool,
    /// `?wait`, milliseconds.
    #[serde(default)]
    pub wait_ms: u64,
}

impl Admitted {
    /// From the context of an admission.
    pub fn decode(context: &[u8]) -> Self {
        // What cannot be read is what nobody wrote: nothing is known of the caller.
        serde_json::from_slice(context).unwrap_or_default()
    }

    /// Whether the credentials are for this client group and client, as far as the request names them.
    pub fn check_ids(&self, client_group_id: Option<&str>, client_id: Option<&str>) -> Result<(), Refusal> {
        let differs = |own: &Option<String>, named: Option<&str>| own.as_deref().zip(named).is_some_and(|(own, named)| own != named);
        if differs(&self.client_group_id, client_group_id) || differs(&self.client_id, client_id) {
            return Err(Refusal::Forbidden("client-group-mismatch"));
        }
        Ok(())
    }
}

/// Decides from the head.
pub fn admit(call: &Call<'_>, route: Option<&Route>, head: &RequestHead) -> Result<AdmitAccept, Refusal> {
    let settings = call.settings;
    let route = route.filter(|route| exists(call, route)).ok_or(Refusal::NotFound)?;
    if !route.methods().contains(&head.method.as_str()) {
        return Err(Refusal::MethodNotAllowed(route.methods()));
    }
    let uploads = head.method == "PUT";
    match (route, &settings.blobs) {
        (Route::Admin(_), _) => {}
        (Route::Blob { part: BlobPart::Bytes, .. }, Some(blobs)) if uploads => check_size(blobs.bytes_max, head)?,
        _ => check_size(settings.payload_bytes_max, head)?,
    }
    let admitted = match route {
        Route::Health => Admitted::default(),
        Route::Admin(_) => {
            check_admin(call, head)?;
            Admitted::default()
        }
        Route::Blob { hash, part: BlobPart::Bytes } if presign::is_signed(head) => presign::admit(call, hash, head)?,
        _ => admit_caller(call, route, head)?,
    };
    match route {
        Route::Socket => return Err(Refusal::invalid("a WebSocket handshake is expected")),
        Route::Blob { hash, .. } if !is_hash(hash) => {
            return Err(Refusal::BlobInvalidRequest("the hash must be 64 lowercase hex digits".into()));
        }
        _ => {}
    }
    if head.method == "POST" && !has_known_coding(head) {
        return Err(Refusal::UnsupportedContentEncoding);
    }
    // The hash is that of the bytes that are sent, and so are those that are kept.
    if uploads && !is_plain(head) {
        return Err(Refusal::UnsupportedBlobEncoding);
    }
    let (limit, wait_ms) = if *route == Route::Pull { (page_limit(call, head)?, wait_ms(head)?) } else { (None, 0) };
    let context = serde_json::to_vec(&Admitted { limit, wait_ms, ..admitted }).map_err(|error| Refusal::Internal(error.to_string()))?;
    let work = match route {
        Route::Admin(name) if name == "migrate" => Work::Long,
        Route::Admin(name) if ["gc", "reconcile"].contains(&name.as_str()) => Work::Long,
        Route::Query | Route::Snapshot => Work::Heavy,
        _ => Work::Usual,
    };
    let body = match route {
        Route::Blob { hash, part: BlobPart::Bytes } if uploads => blob::upload_plan(call, hash, head)?,
        _ => BodyPlan::Inline(settings.body_bytes_max),
    };
    Ok(AdmitAccept { body, context, work })
}

/// Recognises the caller of a request or upgrade.
pub fn admit_caller(call: &Call<'_>, route: &Route, head: &RequestHead) -> Result<Admitted, Refusal> {
    let token = credentials::token(head, route.takes_query_token(&head.method));
    let Settings { auth, cors, .. } = call.settings;
    let recognised = auth.recognise(call.imports, call.mount, token.as_deref(), head, cors);
    let Recognised { mut ctx, expires_at_ms } = recognised.map_err(|denied| match denied {
        Denied::Refused(reason) => Refusal::Unauthorized(reason),
        Denied::Unavailable(problem) => Refusal::Unavailable(problem),
    })?;
    // These change with every token, and no rule may rest on them.
    ctx.remove("iat");
    ctx.remove("exp");
    // PostgreSQL keeps no text with it, so no user of such a name can have anything.
    if ctx.iter().any(|(name, value)| name.contains('\0') || has_zero_character(value)) {
        return Err(Refusal::Unauthorized("the credentials hold U+0000".into()));
    }
    if !ctx.get("userId").is_some_and(|user| user.is_string() || user.is_number()) {
        return Err(Refusal::Unauthorized("the credentials name no user".into()));
    }
    let id = |name: &str| ctx.get(name).and_then(Json::as_str).map(str::to_owned);
    let (client_group_id, client_id) = (id("clientGroupID"), id("clientID"));
    let admitted = Admitted { ctx, expires_at_ms, client_group_id, client_id, ..Admitted::default() };
    admitted.check_ids(header_text(head, "x-plasma-client-group"), header_text(head, "x-plasma-client"))?;
    Ok(admitted)
}

/// Whether the settings let a route exist.
fn exists(call: &Call<'_>, route: &Route) -> bool {
    match route {
        Route::Admin(name) => call.settings.admin_token.is_some() && [&ADMIN_READS[..], &ADMIN_WRITES].concat().contains(&name.as_str()),
        Route::Poke | Route::Socket | Route::Live => call.settings.poke.is_some(),
        Route::Blob { .. } => call.settings.blobs.is_some(),
        _ => true,
    }
}

fn check_size(limit: u64, head: &RequestHead) -> Result<(), Refusal> {
    match content_length(head) {
        Some(got) if got > limit => Err(Refusal::PayloadTooLarge { limit, got }),
        _ => Ok(()),
    }
}

fn check_admin(call: &Call<'_>, head: &RequestHead) -> Result<(), Refusal> {
    let presented = credentials::of_bearer(head).unwrap_or_default();
    let good = call.settings.admin_token.as_ref().is_some_and(|token| secrets::equal(presented, token));
    if good { Ok(()) } else { Err(Refusal::Unauthorized("the admin token is needed".into())) }
}

fn is_hash(hash: &str) -> bool {
    hash.len() == 64 && hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// `?wait`: what is beyond a minute is lowered to it.
fn wait_ms(head: &RequestHead) -> Result<u64, Refusal> {
    let Some(text) = query_parameter(head, "wait") else { return Ok(0) };
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Refusal::invalid("wait must be a number of milliseconds"));
    }
    Ok(text.parse().unwrap_or(u64::MAX).min(WAIT_MS_MAX))
}

/// `?limit`: what is beyond the page size is lowered to it.
fn page_limit(call: &Call<'_>, head: &RequestHead) -> Result<Option<usize>, Refusal> {
    let Some(text) = query_parameter(head, "limit") else { return Ok(None) };
    let digits = !text.starts_with('0') && !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits {
        return Err(Refusal::invalid("limit must be a positive integer"));
    }
    // More digits than a number holds are more rows than a page holds.
    Ok(Some(text.parse().unwrap_or(usize::MAX).min(call.settings.page_rows_max)))
}
