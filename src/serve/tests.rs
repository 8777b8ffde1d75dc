use std::net::SocketAddr;

use prometheus::IntCounter;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
    time::timeout,
};

use super::*;

struct Server {
    address: SocketAddr,
    health: Health,
    cancel: CancellationToken,
    task: JoinHandle<io::Result<()>>,
}

async fn start() -> Server {
    let registry = Registry::new();
    let counter = IntCounter::new("test_things_total", "Things").unwrap();
    registry.register(Box::new(counter.clone())).unwrap();
    counter.inc_by(3);
    let health = Health::expecting(&["database"]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let cancel = CancellationToken::new();
    let state = ServeState {
        registry,
        health: health.clone(),
        agents: None,
        page: None,
    };
    Server {
        address,
        health,
        task: tokio::spawn(serve(listener, state, cancel.clone())),
        cancel,
    }
}

impl Server {
    /// Sends a request and reads the whole answer.
    async fn ask(&self, request_line: &str) -> String {
        let exchange = async {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            let request = format!("{request_line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        timeout(Duration::from_secs(10), exchange)
            .await
            .expect("an answer within ten seconds")
    }

    async fn stop(self) {
        self.cancel.cancel();
        let stopped = timeout(Duration::from_secs(10), self.task).await;
        stopped.expect("a stop within ten seconds").unwrap().unwrap();
    }
}

#[tokio::test]
async fn metrics_are_served_in_the_text_format() {
    let server = start().await;
    let answer = server.ask("GET /metrics").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(
        answer.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"),
        "{answer}"
    );
    assert!(
        answer.contains("\n# TYPE test_things_total counter\ntest_things_total 3\n"),
        "{answer}"
    );
    server.stop().await;
}

#[tokio::test]
async fn alive_is_not_yet_ready() {
    let server = start().await;
    assert!(server.ask("GET /healthz").await.starts_with("HTTP/1.1 200 OK\r\n"));
    let answer = server.ask("GET /readyz").await;
    assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{answer}");
    assert!(answer.contains("cache-control: no-store\r\n"), "{answer}");
    assert!(
        answer.ends_with("\r\n\r\n[-]database failed: not checked yet\nreadyz check failed\n"),
        "{answer}"
    );
    server.health.set("database", Ok(()));
    let answer = server.ask("GET /readyz").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(
        answer.ends_with("\r\n\r\n[+]database ok\nreadyz check passed\n"),
        "{answer}"
    );
    server.health.set("database", Err("connection refused".to_owned()));
    assert!(server.ask("GET /readyz").await.starts_with("HTTP/1.1 503 "));
    assert!(server.ask("GET /healthz").await.starts_with("HTTP/1.1 200 OK\r\n"));
    server.stop().await;
}

#[tokio::test]
async fn wrong_pages_and_methods_are_told_what_there_is() {
    let server = start().await;
    let answer = server.ask("GET /metric").await;
    assert!(answer.starts_with("HTTP/1.1 404 Not Found\r\n"), "{answer}");
    assert!(answer.contains("/metrics"), "{answer}");
    let answer = server.ask("POST /metrics").await;
    assert!(answer.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"), "{answer}");
    assert!(answer.contains("POST is not allowed here"), "{answer}");
    assert!(server.ask("HEAD /healthz").await.starts_with("HTTP/1.1 200 OK\r\n"));
    assert!(server.ask("GET /").await.contains("/readyz"));
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_never_finishes_its_request_does_not_keep_the_server_from_stopping() {
    let server = start().await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost:").await.unwrap();
    assert!(
        server.ask("GET /healthz").await.starts_with("HTTP/1.1 200 OK\r\n"),
        "others are served"
    );
    server.stop().await;
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_and_slots_come_back() {
    let server = start().await;
    let mut open = Vec::new();
    for _ in 0..connection::CONNECTIONS {
        open.push(TcpStream::connect(server.address).await.unwrap());
    }
    let mut beyond = TcpStream::connect(server.address).await.unwrap();
    let mut buffer = [0];
    let end = timeout(Duration::from_secs(10), beyond.read(&mut buffer)).await;
    assert!(matches!(end.expect("an end at once"), Ok(0) | Err(_)), "it is closed");
    open.clear();
    let served = async {
        loop {
            let mut stream = TcpStream::connect(server.address).await.unwrap();
            let request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
            let mut answer = String::new();
            // Until the server has noticed that the others are gone, this one may be closed in the middle.
            if stream.write_all(request).await.is_ok()
                && stream.read_to_string(&mut answer).await.is_ok()
                && answer.starts_with("HTTP/1.1 200 OK\r\n")
            {
                return;
            }
        }
    };
    timeout(Duration::from_secs(10), served).await.expect("a free slot");
    server.stop().await;
}
