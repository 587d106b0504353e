//! Changes that go to a connection whole.
//!
//! A statement takes about 40 us to the thread of its connection and back on an idle machine, and
//! on a busy one whoever sent it has to wait for its turn among all that the runtime has to do. So
//! the statements of a change, with what they insert, go there together. Rows go as one blob with a
//! list of where each of them stands in it: arguments of their own would each be allocated here and
//! freed on the other thread, which costs more than to insert them.

use sqlx::sqlite::SqliteArguments;
use sqlx::{Arguments, AssertSqlSafe, Encode, Sqlite, Type};

use super::query::Query;

/// Bits of the position of a row: 22 say at which byte, 12 how long its head is, 17 how long its
/// payload is, and 12 by how much its number is above the first.
const AT_BIT: u32 = 41;
const HEAD_BIT: u32 = 29;
const PAYLOAD_BIT: u32 = 12;
const MAX_BYTES: usize = 1 << 20;
const MAX_HEAD: usize = (1 << (AT_BIT - HEAD_BIT)) - 1;
const MAX_PAYLOAD: usize = (1 << (HEAD_BIT - PAYLOAD_BIT)) - 1;
const MAX_ABOVE: u64 = (1 << PAYLOAD_BIT) - 1;
/// Maximum number of bytes of arguments of a statement that is cached: the cache keeps those too.
const MAX_CACHED_BYTES: usize = 32 << 10;

/// One row: a number, an id where the table has one, a head and a payload.
#[derive(Debug)]
pub(super) struct Row<'a> {
    pub(super) number: u64,
    pub(super) id: Option<[u8; 32]>,
    pub(super) head: Vec<u8>,
    pub(super) payload: &'a [u8],
}

impl Row<'_> {
    fn size(&self) -> usize {
        self.id.map_or(0, |id| id.len()) + self.head.len() + self.payload.len()
    }

    fn is_small(&self) -> bool {
        self.head.len() <= MAX_HEAD && self.payload.len() <= MAX_PAYLOAD
    }

    fn is_near(&self, first: u64) -> bool {
        self.number.checked_sub(first).is_some_and(|above| above <= MAX_ABOVE)
    }
}

/// Statements and their arguments.
#[derive(Debug, Default)]
pub(super) struct BulkInsert {
    sql: String,
    arguments: SqliteArguments,
    statements: usize,
    bytes: usize,
}

impl BulkInsert {
    pub(super) fn add(&mut self, statement: &str) {
        self.sql.push_str(statement);
        self.sql.push(';');
        self.statements += 1;
    }

    /// Binds a value, and says how a statement names the value. `sqlx` counts these over all
    /// statements; with `?1` it would take the numbers that a statement leaves out for values too.
    pub(super) fn bind<'q, T>(&mut self, value: T) -> Result<String, sqlx::Error>
    where
        T: Encode<'q, Sqlite> + Type<Sqlite>,
    {
        self.arguments.add(value).map_err(sqlx::Error::Encode)?;
        Ok(format!("${}", self.arguments.len()))
    }

    /// Binds a value that may be large; see [`BulkInsert::bind`].
    pub(super) fn bind_bytes(&mut self, bytes: Vec<u8>) -> Result<String, sqlx::Error> {
        self.bytes += bytes.len();
        self.bind(bytes)
    }

    /// Inserts rows into a table, `into` being its name and columns.
    pub(super) fn insert<'r>(
        &mut self,
        into: &str,
        rows: impl Iterator<Item = Row<'r>>,
    ) -> Result<(), sqlx::Error> {
        let (mut some, mut bytes) = (Vec::<Row<'r>>::new(), 0);
        for row in rows {
            let first = some.first().map_or(row.number, |first| first.number);
            if bytes > MAX_BYTES || !row.is_small() || !row.is_near(first) {
                self.insert_some(into, &std::mem::take(&mut some))?;
                bytes = 0;
            }
            if row.is_small() {
                bytes += row.size();
                some.push(row);
            } else {
                self.insert_one(into, &row)?;
            }
        }
        self.insert_some(into, &some)
    }

    fn insert_some(&mut self, into: &str, rows: &[Row<'_>]) -> Result<(), sqlx::Error> {
        match rows {
            [] => Ok(()),
            [row] => self.insert_one(into, row),
            [first, ..] => self.insert_packed(into, first, rows),
        }
    }

    fn insert_one(&mut self, into: &str, row: &Row<'_>) -> Result<(), sqlx::Error> {
        let mut values = vec![self.bind(row.number.cast_signed())?];
        if let Some(id) = row.id {
            values.push(self.bind_bytes(id.to_vec())?);
        }
        let (head, payload) = (row.head.clone(), row.payload.to_vec());
        values.extend([self.bind_bytes(head)?, self.bind_bytes(payload)?]);
        self.add(&format!("INSERT INTO {into} VALUES ({})", values.join(", ")));
        Ok(())
    }

    fn insert_packed(
        &mut self,
        into: &str,
        first: &Row<'_>,
        rows: &[Row<'_>],
    ) -> Result<(), sqlx::Error> {
        let mut bytes = Vec::with_capacity(rows.iter().map(Row::size).sum());
        let mut positions = String::with_capacity(20 * rows.len() + 2);
        for row in rows {
            let position = (bytes.len() as u64) << AT_BIT
                | (row.head.len() as u64) << HEAD_BIT
                | (row.payload.len() as u64) << PAYLOAD_BIT
                | (row.number - first.number);
            positions.push(if positions.is_empty() { '[' } else { ',' });
            positions.push_str(&position.to_string());
            bytes.extend(row.id.iter().flatten());
            bytes.extend(&row.head);
            bytes.extend(row.payload);
        }
        positions.push(']');
        let number = self.bind(first.number.cast_signed())?;
        let (bytes, positions) = (self.bind_bytes(bytes)?, self.bind(positions)?);
        // `substr` counts from 1.
        let (at, head) =
            (format!("(value >> {AT_BIT}) + 1"), format!("(value >> {HEAD_BIT} & {MAX_HEAD})"));
        let (id, at) = match first.id {
            Some(id) => (format!("substr({bytes}, {at}, {0}), ", id.len()), format!("{at} + 32")),
            None => (String::new(), at),
        };
        self.add(&format!(
            "INSERT INTO {into} SELECT {number} + (value & {MAX_ABOVE}), \
             {id}substr({bytes}, {at}, {head}), \
             substr({bytes}, {at} + {head}, value >> {PAYLOAD_BIT} & {MAX_PAYLOAD}) \
             FROM json_each({positions})"
        ));
        Ok(())
    }

    /// Makes a query of all that was added, as a transaction of its own or within another; nothing
    /// where there is nothing to do.
    pub(super) fn into_query(mut self, alone: bool) -> Option<Query<'static>> {
        // One statement is a transaction anyway.
        if alone && self.statements > 1 {
            self.sql = format!("BEGIN IMMEDIATE;{}COMMIT", self.sql);
        }
        let query = sqlx::query_with(AssertSqlSafe(self.sql), self.arguments);
        (self.statements > 0).then(|| query.persistent(self.bytes <= MAX_CACHED_BYTES))
    }
}

#[cfg(test)]
mod tests {
    use sqlx::Row as _;

    use super::super::database::Database;
    use super::super::database::tests::SETUP;
    use super::*;

    const TABLES: &str = "\
        CREATE TABLE a (n INTEGER PRIMARY KEY, id BLOB NOT NULL, head BLOB NOT NULL, \
                        payload BLOB NOT NULL) STRICT; \
        CREATE TABLE b (n INTEGER PRIMARY KEY, head BLOB NOT NULL, payload BLOB NOT NULL) STRICT;";

    /// Bytes that differ from place to place.
    fn bytes(seed: usize, len: usize) -> Vec<u8> {
        (0..len).map(|at| u8::try_from((at * 31 + seed * 17) % 251).unwrap()).collect()
    }

    /// Numbers, and how long heads and payloads are: all that goes together and all that does not.
    fn shapes() -> Vec<(u64, usize, usize)> {
        let top = i64::MAX.cast_unsigned();
        let edges = [
            (5, 0, 0),
            (6, 1, 0),
            (7, 0, 1),
            (8, MAX_HEAD, MAX_PAYLOAD),
            (9, MAX_HEAD + 1, 10),
            (10, 10, MAX_PAYLOAD + 1),
            (11, 10, 3 << 20),
            (12, 100, 1024),
            (13 + MAX_ABOVE, 100, 1024),
            (14 + MAX_ABOVE, 100, 1024),
            (3, 100, 1024),
            (4, 100, 1024),
            (1 << 40, 100, 1024),
            (top - 1, 100, 1024),
            (top, 100, 1024),
        ];
        // More than go together, with numbers left out.
        let many = (0..700).map(|n| (100_000 + 3 * n, 90, 1024 + usize::from(n % 7 == 0) * 9000));
        let wide = (0..20).map(|n| (200_000 + n, 200, 100_000));
        edges.into_iter().chain(many).chain(wide).collect()
    }

    type Data = (u64, [u8; 32], Vec<u8>, Vec<u8>);

    fn row(with_id: bool, (n, id, head, payload): &Data) -> Row<'_> {
        Row { number: *n, id: with_id.then_some(*id), head: head.clone(), payload }
    }

    #[tokio::test]
    async fn rows_come_back_whatever_they_look_like() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.db");
        let database = Database::open(&path, &[TABLES], SETUP).await.unwrap();
        let data: Vec<Data> = shapes()
            .into_iter()
            .enumerate()
            .map(|(at, (n, head, payload))| {
                let id: [u8; 32] = bytes(at, 32).try_into().unwrap();
                (n, id, bytes(at + 1, head), bytes(at + 2, payload))
            })
            .collect();
        let mut bulk = BulkInsert::default();
        bulk.insert("a (n, id, head, payload)", data.iter().map(|data| row(true, data))).unwrap();
        bulk.insert("b (n, head, payload)", data.iter().map(|data| row(false, data))).unwrap();
        let mut conn = database.lock().await.unwrap();
        conn.run_bulk(bulk).await.unwrap();
        for (table, with_id) in [("a", true), ("b", false)] {
            let all = format!("SELECT * FROM {table} ORDER BY n");
            let rows = conn.fetch_all(sqlx::query(AssertSqlSafe(all))).await.unwrap();
            assert_eq!(rows.len(), data.len());
            let mut sorted: Vec<_> = data.iter().collect();
            sorted.sort_by_key(|(n, ..)| *n);
            for (row, (n, id, head, payload)) in rows.iter().zip(sorted) {
                assert_eq!(row.get::<i64, _>("n").cast_unsigned(), *n);
                assert!(row.get::<&[u8], _>("head") == head, "{table} {n}");
                assert!(row.get::<&[u8], _>("payload") == payload, "{table} {n}");
                assert!(!with_id || row.get::<&[u8], _>("id") == id, "{table} {n}");
            }
        }
    }

    #[tokio::test]
    async fn a_bulk_insert_happens_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(&dir.path().join("x.db"), &[TABLES], SETUP).await.unwrap();
        let rows = |from: u64| {
            let row = move |n| Row { number: n, id: None, head: vec![1], payload: &[2] };
            (from..from + 10).map(row)
        };
        let mut bulk = BulkInsert::default();
        bulk.insert("b (n, head, payload)", rows(1)).unwrap();
        bulk.insert("b (n, head, payload)", rows(10)).unwrap();
        let mut conn = database.lock().await.unwrap();
        conn.run_bulk(bulk).await.expect_err("number 10 comes twice");
        conn.roll_back().await;
        let count = || sqlx::query("SELECT count(*) FROM b");
        assert_eq!(conn.ask::<i64>(count()).await.unwrap(), Some(0));
        conn.run_bulk(BulkInsert::default()).await.expect("nothing to do");
        let mut bulk = BulkInsert::default();
        bulk.insert("b (n, head, payload)", rows(1)).unwrap();
        let (n, number) = (bulk.bind(7i64).unwrap(), bulk.bind(4i64).unwrap());
        bulk.add(&format!("DELETE FROM b WHERE n = {n} OR n = {number}"));
        conn.run_bulk(bulk).await.unwrap();
        assert_eq!(conn.ask::<i64>(count()).await.unwrap(), Some(8));
    }
}
