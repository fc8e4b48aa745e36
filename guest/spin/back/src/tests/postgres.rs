//! The same over PostgreSQL.

use super::postgres_double::Pool;
use super::*;
use crate::bindings::exports::syncline::spin::adapter::{Database, Start};
use crate::objects::{Download, Upload};
use crate::sql::{ConstraintKind, Dialect};

struct Server {
    world: World,
    pool: Pool,
}

impl Server {
    fn new() -> Self {
        Self { world: World::new(), pool: Pool::new() }
    }

    fn instance(&self) -> Back {
        let mut ports = self.world.ports();
        ports.postgres = Box::new(self.pool.clone());
        let back = Back::new(ports);
        let mut settings = doubles::settings();
        settings.database = Database::Postgres(self.pool.address.to_string());
        back.open(settings).unwrap();
        back.know(doubles::mount("m"));
        back
    }
}

/// Without a prefix: names are found by the search path.
fn plain(sql: &str, parameters: &[Value]) -> Statement {
    Statement { sql: sql.into(), parameters: parameters.to_vec() }
}

impl Back {
    fn plain(&self, handle: Handle, sql: &str, parameters: &[Value]) -> Result<RowSet, Error> {
        self.execute(handle, &[plain(sql, parameters)]).map(|mut sets| sets.remove(0))
    }

    fn write_plain(&self, sql: &str, parameters: &[Value]) {
        self.begin("m", false);
        let handle = self.begin_transaction("main").unwrap();
        self.plain(handle, sql, parameters).unwrap();
        self.commit(handle).unwrap();
        self.end(false).unwrap();
    }

    fn numbers_plain(&self, sql: &str) -> Vec<i64> {
        self.begin("m", false);
        let view = self.open_view("main").unwrap();
        let set = self.query(&view, &plain(sql, &[]), None).unwrap();
        self.close_view(view);
        self.end(false).unwrap();
        decoded(&set)
    }
}

#[test]
fn databases_are_schemas_of_the_names_that_our_own_host_gives_them() {
    let server = Server::new();
    let (back, other) = (server.instance(), server.instance());
    back.begin("m", false);
    let info = back.describe("main").unwrap();
    assert_eq!((info.dialect, info.table_prefix.as_str()), (Dialect::Postgres, ""));
    back.write_plain("CREATE TABLE t (a bigint PRIMARY KEY)", &[]);
    back.write_plain("INSERT INTO t VALUES ($1)", &[5.into()]);
    server.pool.other().run("INSERT INTO syncline_m_main_4.t VALUES (6)");
    assert_eq!(other.numbers_plain("SELECT a FROM t ORDER BY a"), [5, 6]);
    other.begin("n", false);
    let view = other.open_view("main").unwrap();
    assert!(matches!(other.query(&view, &plain("SELECT a FROM t", &[]), None), Err(Error::InvalidStatement(_))));
}

#[test]
fn an_instance_that_dies_within_a_transaction_leaves_nothing_to_the_next() {
    let server = Server::new();
    let back = server.instance();
    back.write_plain("CREATE TABLE t (a bigint)", &[]);
    back.begin("m", false);
    let handle = back.begin_transaction("main").unwrap();
    back.plain(handle, "INSERT INTO t VALUES (1)", &[]).unwrap();
    back.publish(publication("t", "lost"));
    // Its connection goes back to the pool as it is.
    drop(back);
    let next = server.instance();
    next.write_plain("INSERT INTO t VALUES (2)", &[]);
    assert_eq!(next.numbers_plain("SELECT a FROM t"), [2]);
    assert_eq!(messages(&next, 0), Vec::<String>::new());
}

#[test]
fn a_transaction_that_is_let_go_is_rolled_back_at_once() {
    let server = Server::new();
    let back = server.instance();
    back.write_plain("CREATE TABLE t (a bigint)", &[]);
    back.begin("m", false);
    let handle = back.begin_transaction("main").unwrap();
    back.plain(handle, "INSERT INTO t VALUES (1)", &[]).unwrap();
    back.drop_transaction(handle);
    // Nobody holds a lock on it.
    server.pool.other().run("SET lock_timeout = '1s'; LOCK TABLE syncline_m_main_4.t");
    back.end(false).unwrap();
    assert_eq!(back.numbers_plain("SELECT a FROM t"), [0_i64; 0]);
}

#[test]
fn parameters_become_what_the_server_wants() {
    let server = Server::new();
    let back = server.instance();
    back.write_plain(
        "CREATE TABLE t (b boolean, s smallint, i integer, n numeric, r real, d double precision, j jsonb, x timestamptz, y bytea)",
        &[],
    );
    let given = [
        Value::Integer(1),
        Value::Integer(2),
        Value::Integer(3),
        Value::Integer(4),
        Value::Real(0.5),
        Value::Integer(6),
        Value::Text("{\"k\": [1]}".into()),
        Value::Text("2024-01-02T03:04:05Z".into()),
        Value::Blob(vec![7]),
    ];
    let insert = "INSERT INTO t VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    back.write_plain(insert, &given);
    back.write_plain(insert, &given);
    back.write_plain(insert, &vec![Value::Null; 9]);
    back.begin("m", false);
    let handle = back.begin_transaction("main").unwrap();
    let read = "SELECT b, s, i, n, r, d, j, x = '2024-01-02 03:04:05+00', y FROM t WHERE b = $1 AND substr(j ->> 'k', $2, 1) = $3 LIMIT 1";
    let set = back.plain(handle, read, &[Value::Integer(1), Value::Integer(2), "1".into()]).unwrap();
    let mut expected = Vec::new();
    let mut push = |tag: u8, bytes: &[u8]| {
        expected.push(tag);
        expected.extend_from_slice(bytes);
    };
    for number in [1_i64, 2, 3] {
        push(1, &number.to_le_bytes());
    }
    push(3, b"\x01\0\0\04");
    push(2, &0.5_f64.to_le_bytes());
    push(2, &6_f64.to_le_bytes());
    push(3, b"\x0a\0\0\0{\"k\": [1]}");
    push(1, &1_i64.to_le_bytes());
    push(4, b"\x01\0\0\0\x07");
    assert_eq!(set.cells, expected);
    for (sql, value) in [
        ("SELECT 1 FROM t WHERE b = $1", Value::Integer(2)),
        ("SELECT 1 FROM t WHERE s = $1", Value::Text("1".into())),
        ("SELECT 1 FROM t WHERE s = $1", Value::Integer(1 << 20)),
        ("SELECT 1 FROM t WHERE y = $1", Value::Text("a".into())),
        ("SELECT $1::text", Value::Text("a\0".into())),
        ("SELECT $2::text", Value::Text("a".into())),
    ] {
        assert!(matches!(back.plain(handle, sql, &[value]), Err(Error::InvalidStatement(_))), "{sql}");
        // Nothing of it was sent.
    }
}

#[test]
fn errors_and_counts_are_those_of_the_contract() {
    let server = Server::new();
    let back = server.instance();
    back.write_plain("CREATE TABLE t (a bigint PRIMARY KEY, b bigint NOT NULL CHECK (b < 10), c bigint REFERENCES t (a))", &[]);
    back.begin("m", false);
    let handle = back.begin_transaction("main").unwrap();
    let run = |sql: &str| back.plain(handle, sql, &[]);
    assert_eq!(run("INSERT INTO t VALUES (1, 1), (2, 2)").unwrap().changed, 2);
    assert_eq!(run("UPDATE t SET b = 3 RETURNING a").unwrap().changed, 2);
    assert_eq!(run("WITH x AS (SELECT 1) DELETE FROM t WHERE a = 2").unwrap().changed, 1);
    assert_eq!(run("SELECT a FROM t").unwrap().changed, 0);
    let failed = |sql: &str| {
        let savepoint = back.savepoint(handle).unwrap();
        let error = run(sql).unwrap_err();
        back.rollback_to(handle, savepoint).unwrap();
        error
    };
    let constraint = |kind, name: &str| Error::Constraint((kind, name.into()));
    assert_eq!(failed("INSERT INTO t VALUES (1, 1)"), constraint(ConstraintKind::Unique, "t_pkey"));
    assert_eq!(failed("INSERT INTO t VALUES (3, 10)"), constraint(ConstraintKind::Check, "t_b_check"));
    assert_eq!(failed("INSERT INTO t VALUES (3, NULL)"), constraint(ConstraintKind::NotNull, "b"));
    assert_eq!(failed("INSERT INTO t VALUES (3, 1, 9)"), constraint(ConstraintKind::ForeignKey, "t_c_fkey"));
    assert!(matches!(failed("SELECT * FROM missing"), Error::InvalidStatement(what) if what.contains("does not exist")));
    assert!(matches!(failed("SET search_path TO public"), Error::InvalidStatement(_)));
    assert!(matches!(failed("SELECT 1; SELECT 2"), Error::InvalidStatement(_)));
    back.commit(handle).unwrap();
    // A transaction in which something failed is not committed, though the server would say so.
    let handle = back.begin_transaction("main").unwrap();
    back.plain(handle, "INSERT INTO t VALUES (7, 7)", &[]).unwrap();
    back.plain(handle, "INSERT INTO t VALUES (7, 7)", &[]).unwrap_err();
    back.publish(publication("t", "never"));
    assert!(back.commit(handle).is_err());
    back.end(false).unwrap();
    assert_eq!(back.numbers_plain("SELECT a FROM t"), [1]);
    assert_eq!(messages(&back, 0), Vec::<String>::new());
}

#[test]
fn a_view_is_of_one_moment_and_only_reads() {
    let server = Server::new();
    let back = server.instance();
    back.write_plain("CREATE TABLE t (a bigint, j jsonb)", &[]);
    back.write_plain("INSERT INTO t VALUES (1, '[2]')", &[]);
    back.begin("m", false);
    let view = back.open_view("main").unwrap();
    let handle = back.begin_transaction("main").unwrap();
    back.plain(handle, "INSERT INTO t VALUES (2, NULL)", &[]).unwrap();
    back.commit(handle).unwrap();
    let read = |sql: &str, limit| back.query(&view, &plain(sql, &[]), limit);
    assert_eq!(decoded(&read("SELECT a FROM t", Some(5)).unwrap()), [1]);
    assert_eq!(read("SELECT j, a, j FROM t;", None).unwrap().cells[..8], *b"\x03\x03\0\0\0[2]");
    assert!(read("SELECT a FROM t -- all", Some(0)).unwrap().truncated);
    assert!(matches!(read("INSERT INTO t VALUES (3)", None), Err(Error::InvalidStatement(_))));
    back.close_view(view);
    back.end(false).unwrap();
    assert_eq!(back.numbers_plain("SELECT a FROM t ORDER BY a"), [1, 2]);
}

#[test]
fn writers_of_a_database_take_turns_and_those_of_others_do_not_wait() {
    let server = Server::new();
    let (back, other) = (server.instance(), server.instance());
    back.begin("m", false);
    let handle = back.begin_transaction("graph/1").unwrap();
    other.begin("m", false);
    let beside = other.begin_transaction("graph/2").unwrap();
    other.commit(beside).unwrap();
    other.end(false).unwrap();
    other.begin("m", false);
    assert_eq!(other.begin_transaction("graph/1"), Err(Error::Aborted));
    assert!(other.end(true).unwrap().again);
    back.commit(handle).unwrap();
    other.begin("m", false);
    let turn = other.begin_transaction("graph/1").unwrap();
    other.commit(turn).unwrap();
}

#[test]
fn what_the_adapter_keeps_is_kept_there_too() {
    let server = Server::new();
    let (back, other) = (server.instance(), server.instance());
    assert_eq!(back.claim_start("m", "r").unwrap(), Start::Step(None));
    back.started("m", "r", None).unwrap();
    assert_eq!(other.claim_start("m", "r").unwrap(), Start::Done);
    back.begin("m", false);
    let handle = back.begin_transaction("main").unwrap();
    assert_eq!((back.increment("n", 2, Some(1000)).unwrap(), back.increment("n", 40, None).unwrap()), (2, 42));
    assert!(back.compare_and_set("lock", None, b"me").unwrap());
    back.schedule("job\0", 1, b"x");
    back.publish(publication("t\0", "dropped"));
    back.drop_transaction(handle);
    back.subscribe(1 << 63, subscription("t", Some("me")));
    back.publish(publication("t\0", "one"));
    back.set("a".into(), b"x".to_vec(), None).unwrap();
    assert_eq!(back.end(false).unwrap().published, Some(1));
    assert_eq!((messages(&other, 0), other.positions(&["m".into(), "n".into()]).unwrap()), (vec!["one".to_owned()], vec![1, 0]));
    other.begin("m", false);
    assert_eq!((other.increment("n", 0, None), other.compare_and_set("lock", Some(b"you"), b"")), (Ok(42), Ok(false)));
    assert_eq!(
        (other.keys("", None, 9).unwrap(), other.members("t")[0].connection),
        (vec!["a".into(), "lock".into(), "n".into()], 1 << 63)
    );
    other.end(false).unwrap();
    let jobs = other.due_jobs(5).unwrap();
    assert_eq!((jobs.len(), jobs[0].name.as_str(), back.due_jobs(5).unwrap().len()), (1, "job\0", 0));
    other.job_done(&jobs[0], None).unwrap();
    assert_eq!(other.next_due().unwrap(), None);
    assert!(back.hold("p", "a", 1, 1000).unwrap() && !other.hold("p", "b", 1, 1000).unwrap());
    back.remember("k\0", b"v").unwrap();
    assert_eq!(other.recall("k\0").unwrap(), Some(b"v".to_vec()));
    server.world.pass_ms(1_000_000);
    back.clean(&back.opened().unwrap(), "m");
    assert_eq!(server.world.lines.borrow().len(), 0, "{:?}", server.world.lines.borrow());
}

#[test]
fn objects_are_rows_there_too() {
    let server = Server::new();
    let back = server.instance();
    let content: Vec<u8> = (0..(2 << 20) + 100).map(|index: u32| index.to_le_bytes()[0]).collect();
    let mut upload = Upload::new(&back, "m".into(), "blob".into(), "text/plain".into(), None, 1 << 30).unwrap();
    upload.write(&back, &content).unwrap();
    assert!(!upload.finish(&back).unwrap().existed);
    let mut download = Download::open(&back, "m".into(), "blob".into(), Some(((1 << 20) - 3, 6))).unwrap().unwrap();
    let mut read = Vec::new();
    while let Some(piece) = download.read().unwrap() {
        read.extend(piece);
    }
    assert_eq!(read, content[(1 << 20) - 3..(1 << 20) + 3]);
    back.begin("m", false);
    back.write_object("blob", "text/plain", b"new".to_vec()).unwrap();
    assert_eq!(back.read_object("blob", None), Ok(b"new".to_vec()));
    assert_eq!(back.list_objects("", None, 5).unwrap().len(), 1);
    back.delete_object("blob".into()).unwrap();
    back.end(false).unwrap();
}
