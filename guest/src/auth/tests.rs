//! Who gets in, by every kind of credential.

use ed25519_dalek::pkcs8::EncodePublicKey as _;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::{Signer as _, SigningKey as EdSigningKey};
use hmac::{Hmac, KeyInit as _, Mac as _};
use p256::ecdsa::{Signature as EcSignature, SigningKey as EcSigningKey};
use serde_json::{Value as Json, json};
use sha2::Sha256;

use super::*;
use crate::encoding::base64url;
use crate::imports::{Caller, Identity, Reply, RouteRequest, RouteResponse, Verdict};
use crate::settings::Settings;
use crate::test_host::HostInMemory;

/// The public half of a key made for this test with OpenSSL; [`RSA_TOKEN`] was signed with it.
const RSA_PEM: &str = "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA7BvcYXtET8QeKntbS8Rx\n0CFVhOCE+K05J5zERiY8sDjd6EV74p+aPOOe3/X0GONmTdeMB31zuUSFeHGr22rA\nVcv/YS5PsLxcglwjK5gctIpWKqGdA14MKQNBKxjOjeUGXVj1UYuL2V8fYE9S5hPO\ngiUdL0Nciodu3gmCMukIXuti/PjByu9HViKsxLdBYT1oT8s0cwTDnOcI0NMeIZNT\nXijiF4KGiMNms+Wl29KuxChbYSXVfqnp+PtU6sZTIS91zuyq2owaQmEYlhv+iL/d\niBQ1e1ECnWA6gkV8hGar+qLEE3EBlo6Y63XagI3ApO3VUuXSJZF/XDNTtbE+0IB3\nXQIDAQAB\n-----END PUBLIC KEY-----";
const RSA_PKCS1_PEM: &str = "-----BEGIN RSA PUBLIC KEY-----\nMIIBCgKCAQEA7BvcYXtET8QeKntbS8Rx0CFVhOCE+K05J5zERiY8sDjd6EV74p+a\nPOOe3/X0GONmTdeMB31zuUSFeHGr22rAVcv/YS5PsLxcglwjK5gctIpWKqGdA14M\nKQNBKxjOjeUGXVj1UYuL2V8fYE9S5hPOgiUdL0Nciodu3gmCMukIXuti/PjByu9H\nViKsxLdBYT1oT8s0cwTDnOcI0NMeIZNTXijiF4KGiMNms+Wl29KuxChbYSXVfqnp\n+PtU6sZTIS91zuyq2owaQmEYlhv+iL/diBQ1e1ECnWA6gkV8hGar+qLEE3EBlo6Y\n63XagI3ApO3VUuXSJZF/XDNTtbE+0IB3XQIDAQAB\n-----END RSA PUBLIC KEY-----";
const RSA_MODULUS: &str = "7BvcYXtET8QeKntbS8Rx0CFVhOCE-K05J5zERiY8sDjd6EV74p-aPOOe3_X0GONmTdeMB31zuUSFeHGr22rAVcv_YS5PsLxcglwjK5gctIpWKqGdA14MKQNBKxjOjeUGXVj1UYuL2V8fYE9S5hPOgiUdL0Nciodu3gmCMukIXuti_PjByu9HViKsxLdBYT1oT8s0cwTDnOcI0NMeIZNTXijiF4KGiMNms-Wl29KuxChbYSXVfqnp-PtU6sZTIS91zuyq2owaQmEYlhv-iL_diBQ1e1ECnWA6gkV8hGar-qLEE3EBlo6Y63XagI3ApO3VUuXSJZF_XDNTtbE-0IB3XQ";
/// `{"sub":"alice","exp":2000}`, key id `r1`.
const RSA_TOKEN: &str = "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6InIxIn0.eyJzdWIiOiJhbGljZSIsImV4cCI6MjAwMH0.IduE5nAgsEPnM8RCaxtSMTkSzOpeGvmsSpjeicSyFiKEl3XcbMUjdO0QntjEhV6-ulG7OcEh7tOGQIasO3KhrZoH0NXiNLquhSS9H6zpJIrj_P9XISrQbx1NnIxltedSPY-EWaoMkS-OfuqLwviESfJHUCM3Ru-IRRftmjBPaKbyIBtpR2WHebyHXNwRmEIR43z6nBWCUxh1xTVxvcPqwwlSCqgRbzzQbboMi6_O7j8OZWP0mNVO5MA98HGSN6n6DmiuF8YxMrV9knTb1PYyOjL598QcucUr5FBXoHKT1LYYodYK_kHw522j5ghMTw4htaTeO3FgqpuNWRL0TACRVw";
/// 1024 bits.
const WEAK_RSA_PEM: &str = "-----BEGIN PUBLIC KEY-----\nMIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDhLV/jhsYxOEjB4W8Ap/reIqOs\nkUKK7g5GBQhiRa0SEnOPlOMAiKeWBqCg5efkkX/R9s9q2PhGaWxD84pq/sTxIhsZ\nETscItfOw4qj0kNFSoNgRw94F2LbI0XThLyWB4OrQ64QtxLsMBvoTGdJ23He6oHc\n+at8UD+8VtBswLlE1QIDAQAB\n-----END PUBLIC KEY-----";
const SECRET: &str = "a secret of the test";
const NOW_MS: u64 = 1_000_000;

fn auth(block: Json) -> Result<Auth, Vec<String>> {
    let mut settings = Settings::parse(&json!({ "auth": block }).to_string()).unwrap();
    let auth = Auth::take(&mut settings);
    let problems = settings.finish();
    if problems.is_empty() { Ok(auth.unwrap()) } else { Err(problems) }
}

fn head() -> RequestHead {
    RequestHead {
        method: "POST".into(),
        path: "/sync/push".into(),
        query: None,
        headers: Vec::new(),
        remote_address: "127.0.0.1".into(),
        secure: false,
    }
}

fn no_pages() -> Cors {
    Cors { origins: Vec::new(), methods: "", request_headers: "", exposed_headers: "" }
}

fn recognise(host: &HostInMemory, auth: &Auth, token: &str) -> Result<Recognised, Denied> {
    host.now_ms.set(NOW_MS);
    auth.recognise(host.imports(), "m", Some(token), &head(), &no_pages())
}

fn refused(reason: &str) -> Result<Recognised, Denied> {
    Err(Denied::Refused(reason.into()))
}

fn unsigned(head: &Json, claims: &Json) -> String {
    format!("{}.{}", base64url(head.to_string()), base64url(claims.to_string()))
}

fn by_secret(secret: &str, head: &Json, claims: &Json) -> String {
    let message = unsigned(head, claims);
    let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap().chain_update(&message).finalize().into_bytes();
    format!("{message}.{}", base64url(mac))
}

fn hs256(claims: &Json) -> String {
    by_secret(SECRET, &json!({"alg": "HS256"}), claims)
}

#[test]
fn a_static_token_is_its_context_and_every_other_is_refused() {
    let host = HostInMemory::default();
    let auth = auth(json!({"mode": "static", "tokens": {"tok_a": {"userId": "alice", "user_name": 1}, "b": {"userId": "bob"}}})).unwrap();
    assert_eq!(Json::Object(recognise(&host, &auth, "tok_a").unwrap().ctx), json!({"userId": "alice", "user_name": 1}));
    for other in ["tokA", "tok_", "tok_a ", "c"] {
        assert_eq!(recognise(&host, &auth, other), refused("invalid token"), "{other}");
    }
    assert_eq!(recognise(&host, &auth, ""), refused("no credentials"));
    assert_eq!(auth.recognise(host.imports(), "m", None, &head(), &no_pages()), refused("no credentials"));
}

#[test]
fn each_algorithm_takes_its_own_signature_and_no_other() {
    let host = HostInMemory::default();
    let claims = json!({"sub": "alice", "exp": 2000});
    let ed = EdSigningKey::from_bytes(&[7; 32]);
    let ed_pem = ed.verifying_key().to_public_key_pem(LineEnding::LF).unwrap();
    let ed_message = unsigned(&json!({"alg": "EdDSA"}), &claims);
    let ed_token = format!("{ed_message}.{}", base64url(ed.sign(ed_message.as_bytes()).to_bytes()));
    let ec = EcSigningKey::from_slice(&[9; 32]).unwrap();
    let point = ec.verifying_key().to_sec1_point(false);
    let ec_jwk = json!({"kty": "EC", "crv": "P-256", "x": base64url(point.x().unwrap()), "y": base64url(point.y().unwrap())});
    let ec_message = unsigned(&json!({"alg": "ES256"}), &claims);
    let signature: EcSignature = ec.sign(ec_message.as_bytes());
    let ec_token = format!("{ec_message}.{}", base64url(signature.to_bytes()));
    let ed_jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": base64url(ed.verifying_key().as_bytes())});
    let rsa_jwk = json!({"kty": "RSA", "n": RSA_MODULUS, "e": "AQAB", "alg": "RS256", "kid": "r1"});
    let tokens = [("HS256", hs256(&claims)), ("RS256", RSA_TOKEN.into()), ("ES256", ec_token), ("EdDSA", ed_token)];
    let keys = [
        ("HS256", json!(SECRET)),
        ("HS256", json!({"kty": "oct", "k": base64url(SECRET)})),
        ("RS256", json!(RSA_PEM)),
        ("RS256", json!(RSA_PKCS1_PEM)),
        ("RS256", rsa_jwk.clone()),
        ("RS256", json!({"keys": [{"kty": "RSA", "use": "enc", "n": "AQAB", "e": "AQAB"}, ed_jwk, rsa_jwk]})),
        ("ES256", ec_jwk),
        ("EdDSA", json!(ed_pem)),
        ("EdDSA", ed_jwk.clone()),
    ];
    for (algorithm, key) in keys {
        let auth = auth(json!({"mode": "jwt", "alg": algorithm, "key": key})).unwrap_or_else(|problems| panic!("{algorithm} {problems:?}"));
        for (of, token) in &tokens {
            let found = recognise(&host, &auth, token);
            if *of == algorithm {
                assert_eq!(found.unwrap().ctx["userId"], "alice", "{algorithm}");
            } else {
                assert_eq!(found, refused("invalid token"), "{of} where {algorithm} is wanted");
            }
            let (message, _) = token.rsplit_once('.').unwrap();
            for tampered in
                [format!("{message}."), format!("{message}.AAAA"), message.to_owned(), format!("x{token}"), format!("{token}.a")]
            {
                assert_eq!(recognise(&host, &auth, &tampered), refused("invalid token"));
            }
        }
    }
}

#[test]
fn neither_none_nor_a_public_key_as_a_secret_gets_in() {
    let host = HostInMemory::default();
    let auth = auth(json!({"mode": "jwt", "alg": "RS256", "key": RSA_PEM})).unwrap();
    let claims = json!({"sub": "alice", "exp": 2000});
    for head in [json!({"alg": "none"}), json!({"alg": "None"}), json!({}), json!({"alg": "HS256"}), json!({"alg": ["RS256"]})] {
        assert_eq!(recognise(&host, &auth, &by_secret(RSA_PEM, &head, &claims)), refused("invalid token"));
        assert_eq!(recognise(&host, &auth, &format!("{}.", unsigned(&head, &claims))), refused("invalid token"));
    }
    let secret = super::tests::auth(json!({"mode": "jwt", "alg": "HS256", "key": SECRET})).unwrap();
    let critical = by_secret(SECRET, &json!({"alg": "HS256", "crit": ["b64"], "b64": false}), &claims);
    assert_eq!(recognise(&host, &secret, &critical), refused("invalid token"));
}

#[test]
fn times_issuer_and_audience_are_checked_and_claims_become_the_context() {
    let host = HostInMemory::default();
    let rules = json!({"mode": "jwt", "alg": "HS256", "key": SECRET, "issuer": "us", "audience": "app", "userClaim": "uid",
        "ctxClaims": ["role", "team"], "leewayMs": 2000});
    let auth = auth(rules).unwrap();
    let with = |changes: Json| {
        let mut claims = json!({"uid": "alice", "iss": "us", "aud": "app", "exp": 1100, "role": "member", "iat": 5});
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        recognise(&host, &auth, &hs256(&claims))
    };
    let found = with(json!({})).unwrap();
    assert_eq!(Json::Object(found.ctx), json!({"userId": "alice", "role": "member", "team": null}));
    assert_eq!(found.expires_at_ms, Some(1_102_000));
    assert!(with(json!({"exp": 998.5})).is_ok(), "within the leeway");
    assert_eq!(with(json!({"exp": 998})), refused("token expired"));
    assert_eq!(with(json!({"exp": -1e300})), refused("token expired"));
    assert!(with(json!({"exp": 1e300})).is_ok());
    assert_eq!(with(json!({"exp": "later"})), refused("invalid token"));
    assert!(with(json!({"nbf": 1002})).is_ok());
    assert_eq!(with(json!({"nbf": 1003})), refused("token not yet valid"));
    assert_eq!(with(json!({"iss": "them"})), refused("wrong issuer"));
    assert_eq!(with(json!({"aud": ["other"]})), refused("wrong audience"));
    assert!(with(json!({"aud": ["other", "app"]})).is_ok());
    for nobody in [json!({"uid": ""}), json!({"uid": 7}), json!({"uid": null})] {
        assert_eq!(with(nobody), refused("token names no user"));
    }
}

#[test]
fn fetched_keys_are_used_and_an_unknown_one_is_asked_for_once() {
    let host = HostInMemory::default();
    let mut auth = auth(json!({"mode": "jwt", "alg": "RS256", "jwksUrl": "https://id.example/keys"})).unwrap();
    let document = &auth.documents()[0];
    assert_eq!((document.name.as_str(), document.url.as_str()), (KEYS_DOCUMENT, "https://id.example/keys"));
    assert_eq!(recognise(&host, &auth, RSA_TOKEN), Err(Denied::Unavailable("there are no keys yet".into())));
    let set = |id: &str| json!({"keys": [{"kty": "RSA", "n": RSA_MODULUS, "e": "AQAB", "kid": id}]}).to_string().into_bytes();
    auth.take_documents(&[(KEYS_DOCUMENT.into(), set("older"))]);
    assert_eq!(recognise(&host, &auth, RSA_TOKEN), refused("invalid token"));
    host.effects.documents.borrow_mut().insert(KEYS_DOCUMENT.into(), b"gone wrong".to_vec());
    assert_eq!(recognise(&host, &auth, RSA_TOKEN), refused("invalid token"));
    host.effects.documents.borrow_mut().insert(KEYS_DOCUMENT.into(), set("r1"));
    assert_eq!(recognise(&host, &auth, RSA_TOKEN).unwrap().ctx["userId"], "alice");
    host.effects.documents.borrow_mut().clear();
    assert!(recognise(&host, &auth, RSA_TOKEN).is_ok(), "the new set is kept");
}

/// An app that knows one token.
struct Doorkeeper;

impl crate::imports::App for Doorkeeper {
    fn describe(&self) -> String {
        "{}".into()
    }
    fn authenticate(&self, mount: &str, credentials: &str, request: &str) -> Result<Identity, AppFailure> {
        let request: Json = serde_json::from_str(request).unwrap();
        let failed = |code: &str, message: &str| AppFailure { code: code.into(), message: message.into(), retriable: false };
        match credentials {
            "good" => Ok(Identity {
                user_id: Some("alice".into()),
                roles: vec!["admin".into()],
                claims: json!({"mount": mount, "path": request["path"], "exp": 2000}).to_string(),
            }),
            "late" => Ok(Identity { user_id: None, roles: Vec::new(), claims: "{\"exp\":1}".into() }),
            "odd" => Ok(Identity { user_id: None, roles: Vec::new(), claims: "[]".into() }),
            "loop" => Err(failed("timed-out", "")),
            "rude" => Err(failed("", "go away")),
            _ => Err(failed("no", "")),
        }
    }
    fn authorize(&self, _: &Caller, _: &str, _: &[String]) -> Vec<bool> {
        Vec::new()
    }
    fn mutate(&self, _: &Caller, _: &str, _: &str) -> Result<String, AppFailure> {
        Ok(String::new())
    }
    fn validate(&self, _: &Caller, _: &str) -> Verdict {
        Verdict::Accept
    }
    fn call(&self, _: &Caller, _: &str, _: &str) -> Result<Reply, AppFailure> {
        Ok(Reply { value: None, context: Vec::new() })
    }
    fn event(&self, _: &Caller, _: &str, _: &str) -> Result<Reply, AppFailure> {
        Ok(Reply { value: None, context: Vec::new() })
    }
    fn route(&self, _: &Caller, _: &RouteRequest) -> RouteResponse {
        RouteResponse { status: 404, headers: Vec::new(), body: Vec::new() }
    }
}

#[test]
fn the_app_says_who_it_is_or_why_not() {
    let host = HostInMemory::default();
    let ask = |token| Auth::App.recognise(host.imports_with(&Doorkeeper), "m", token, &head(), &no_pages());
    let found = ask(Some("good")).unwrap();
    assert_eq!(Json::Object(found.ctx), json!({"userId": "alice", "roles": ["admin"], "mount": "m", "path": "/sync/push"}));
    assert_eq!(found.expires_at_ms, Some(2_000_000));
    assert_eq!(ask(Some("late")), refused("token expired"));
    assert_eq!(ask(Some("rude")), refused("go away"));
    assert_eq!(ask(None), refused("invalid token"));
    assert!(matches!(ask(Some("loop")), Err(Denied::Unavailable(_))));
    assert!(matches!(ask(Some("odd")), Err(Denied::Unavailable(_))));
}

#[test]
fn an_open_login_can_be_kept_to_this_machine() {
    let host = HostInMemory::default();
    let auth = auth(json!({"mode": "none", "allowInsecure": true, "loopbackOnly": true, "ctx": {"userId": "dev"}})).unwrap();
    let from = |address: &str| {
        let head = RequestHead { remote_address: address.into(), ..head() };
        auth.recognise(host.imports(), "m", None, &head, &no_pages())
    };
    for here in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
        assert!(from(here).is_ok(), "{here}");
    }
    for elsewhere in ["10.0.0.1", "::2", "", "localhost"] {
        assert_eq!(from(elsewhere), refused("only this machine is let in"), "{elsewhere}");
    }
}

#[test]
fn every_problem_of_the_settings_is_named_and_no_secret_is() {
    let problems = |block: Json| auth(block).map(|_| ()).unwrap_err();
    assert_eq!(problems(json!({})), ["auth.mode: must be one of \"static\", \"jwt\", \"app\", \"none\""]);
    let open = problems(json!({"mode": "none", "ctx": {}}));
    assert!(open[0].contains("allowInsecure") && open[1].starts_with("auth.ctx: "), "{open:?}");
    assert!(auth(json!({"mode": "none", "allowInsecure": true, "ctx": {"userId": "dev"}})).is_ok());
    let tokens = problems(json!({"mode": "static", "tokens": {"secret-token": {"role": "x"}}, "colour": 1}));
    assert_eq!(tokens, ["auth.tokens[0]: must be an object with a text userId", "auth.colour: unknown key"]);
    let weak = problems(json!({"mode": "jwt", "alg": "RS256", "key": WEAK_RSA_PEM}));
    assert!(weak[0].starts_with("auth.key: is no public key for RS256"), "{weak:?}");
    for (block, named) in [
        (json!({"mode": "jwt", "alg": "none", "key": "k"}), "auth.alg: "),
        (json!({"mode": "jwt", "alg": "HS256"}), "auth.key: is missing"),
        (json!({"mode": "jwt", "alg": "HS256", "key": ""}), "auth.key: must not be empty"),
        (json!({"mode": "jwt", "alg": "HS256", "jwksUrl": "https://x"}), "auth.jwksUrl: "),
        (json!({"mode": "jwt", "alg": "ES256", "jwksUrl": "ftp://x"}), "auth.jwksUrl: "),
        (json!({"mode": "jwt", "alg": "ES256", "jwksUrl": "https://x", "key": "k"}), "auth.key: "),
        (json!({"mode": "jwt", "alg": "ES256", "key": {"kty": "RSA"}}), "auth.key: is no JWK for ES256"),
        (json!({"mode": "jwt", "alg": "EdDSA", "key": {"keys": []}}), "auth.key: holds no key for EdDSA"),
        (json!({"mode": "jwt", "alg": "RS256", "key": SECRET}), "auth.key: is no public key"),
    ] {
        let found = problems(block);
        assert!(found.iter().any(|problem| problem.starts_with(named)), "{named} in {found:?}");
        assert!(!found.iter().any(|problem| problem.contains(SECRET)));
    }
}

proptest::proptest! {
    #[test]
    fn no_token_whatsoever_panics_or_gets_in(token in ".{0,80}", head in ".{0,40}", claims in ".{0,40}") {
        let host = HostInMemory::default();
        let auth = auth(json!({"mode": "jwt", "alg": "RS256", "key": RSA_PEM})).unwrap();
        let encoded = format!("{}.{}.{}", base64url(&head), base64url(&claims), base64url(&token));
        for token in [token, encoded] {
            proptest::prop_assert!(recognise(&host, &auth, &token).is_err());
        }
    }
}
