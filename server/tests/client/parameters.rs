//! Parameters of statements, from the SDK and from the command line: every type, and never a part of the text.

use foldlog_sdk::{Client, Error, Value};

use crate::support::Server;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parameters_of_every_type_reach_a_statement_as_they_are() {
    let server = Server::start();
    let client = Client::connect(&server.url).await.unwrap();
    let columns = "k VARCHAR, b BOOLEAN, i INT, n BIGINT, d DOUBLE, c DECIMAL(10, 2), y BYTES, at TIMESTAMP, day DATE, t TIME";
    client.query(format!("CREATE STREAM s ({columns}) WITH (partitions = 1)")).execute().await.unwrap();
    let insert = client.query("INSERT INTO s VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)");
    let insert =
        insert.bind("it's; DROP STREAM s; --").bind(true).bind(7_i64).bind(1_i64 << 60).bind(0.1).bind(Value::Decimal("12.50".to_owned()));
    let insert = insert.bind(vec![0_u8, 255]).bind(Value::TimestampMs(1_000)).bind(Value::Date(15_745)).bind(Value::TimeMs(3_723_004));
    insert.execute().await.unwrap();

    let all = "k = $1 AND b = $2 AND i = $3 AND n = $4 AND d = $5 AND c = $6 AND y = $7 AND at = $8 AND day = $9 AND t = $10";
    let found = client.query(format!("SELECT COUNT(*) AS n FROM s WHERE {all}"));
    let found =
        found.bind("it's; DROP STREAM s; --").bind(true).bind(7_i64).bind(1_i64 << 60).bind(0.1).bind(Value::Decimal("12.50".to_owned()));
    let found = found.bind(vec![0_u8, 255]).bind(Value::TimestampMs(1_000)).bind(Value::Date(15_745)).bind(Value::TimeMs(3_723_004));
    let count: i64 = found.one().await.unwrap();
    assert_eq!(count, 1);

    let told = |error: Error| error.to_string();
    let few = client.query("SELECT k FROM s WHERE k = $1 AND i > $2").bind("x").execute().await.map_err(told);
    assert!(few.unwrap_err().contains("the statement has parameters up to $2, 1 value given"));
    let many = client.query("SELECT k FROM s").bind("x").execute().await.map_err(told);
    assert!(many.unwrap_err().contains("the statement has no parameters, 1 value given"));
    let kept = client.query("CREATE STREAM t AS SELECT k FROM s WHERE k = $1").bind("x").execute().await.map_err(told);
    assert!(kept.unwrap_err().contains("takes no parameters"));
    let day = client.query("VALUES ($1)").bind(Value::TimeMs(86_400_000)).execute().await.map_err(told);
    assert!(day.unwrap_err().contains("milliseconds since midnight"));

    let mut pushed = client.push("SELECT k FROM s WHERE i > $1 EMIT CHANGES LIMIT 1").bind(6_i64).start().await.unwrap();
    client.query("INSERT INTO s (k, i) VALUES ('small', $1), ('large', $2)").bind(5_i64).bind(8_i64).execute().await.unwrap();
    let changes = loop {
        let changes = pushed.next().await.unwrap().unwrap();
        if !changes.rows.is_empty() {
            break changes;
        }
    };
    assert_eq!(changes.rows[0].1.values(), [Value::Text("large".to_owned())]);

    let rows = server.rows(&["sql", "SELECT $1 AS n, $2 AS word, $3 AS day", "-p", "7", "-p", "text:7", "-p", "date:2013-02-09"]);
    assert_eq!(rows, [serde_json::json!({ "n": 7, "word": "7", "day": "2013-02-09" })]);
    assert_eq!(server.run(&["sql", "VALUES ($1)", "-p", "bigint:x"]).code, Some(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn arrays_maps_and_structs_are_parameters_with_their_types() {
    let server = Server::start();
    let client = Client::connect(&server.url).await.unwrap();
    let columns = "id INT, tags ARRAY<VARCHAR>, counts MAP<VARCHAR, BIGINT>, place STRUCT<town VARCHAR, at ARRAY<DOUBLE>>";
    client.query(format!("CREATE STREAM s ({columns}) WITH (partitions = 1)")).execute().await.unwrap();
    let nested = |sql_type: &str, json: &str| Value::Nested { sql_type: sql_type.to_owned(), json: json.to_owned() };
    let insert = client.query("INSERT INTO s VALUES (1, $1, $2, $3), (2, $4, NULL, NULL)");
    let insert = insert.bind(nested("ARRAY<VARCHAR>", r#"["a", "it's", null]"#)).bind(nested("MAP<VARCHAR, BIGINT>", r#"{"x": 1}"#));
    let insert = insert.bind(nested("STRUCT<town VARCHAR, at ARRAY<DOUBLE>>", r#"{"town": "Rome", "at": [41.9, 12.5]}"#));
    insert.bind(nested("ARRAY<VARCHAR>", "[]")).execute().await.unwrap();

    let rows = server.rows(&["sql", "SELECT tags, counts, place FROM s WHERE tags = $1", "-p", r#"array<varchar>:["a","it's",null]"#]);
    let place = serde_json::json!({ "town": "Rome", "at": [41.9, 12.5] });
    assert_eq!(rows, [serde_json::json!({ "tags": ["a", "it's", null], "counts": { "x": 1 }, "place": place })]);
    let found = client.query("SELECT id FROM s WHERE array_has($1, id)").bind(nested("ARRAY<INT>", "[2, 3]"));
    let id: i64 = found.one().await.unwrap();
    assert_eq!(id, 2);

    for (sql_type, json, reason) in [
        ("ARRAY<INT>", "[1", "not a JSON value"),
        ("ARRAY<INT>", r#"["x"]"#, "the value of type ARRAY<INTEGER>"),
        ("ARRAY<INTT>", "[1]", "did you mean INT?"),
        ("INT", "1", "expected an ARRAY, MAP or STRUCT"),
        ("ARRAY<", "[]", "expected"),
    ] {
        let refused = client.query("VALUES ($1)").bind(nested(sql_type, json)).execute().await.map_err(|error| error.to_string());
        let told = refused.unwrap_err();
        assert!(told.contains(reason) && told.contains("parameters[0].nested"), "{sql_type} {json}: {told}");
    }
}
