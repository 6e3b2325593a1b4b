//! The HTTP server: paths, limits and timeouts. Knows nothing of engines; it asks the daemon.
//!
//! It shares the daemon's runtime, so every wait for a client is bounded: a connection lasts at most ten seconds and
//! carries one request with a small header, and at most [`MAX_CLIENTS`] are open at once. One more replaces the oldest
//! that has not sent its request, or, if all have, the oldest of all: a slow client loses its own connection, and a
//! prompt one is answered.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::{Context as _, Result};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::Question;
use super::names::Names;
use crate::exit::{Classify as _, Failure};
use crate::view::metrics::text;

/// Most clients at once.
pub const MAX_CLIENTS: usize = 16;
/// Most time for a connection.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most time until the request's header is complete.
const HEADERS: Duration = Duration::from_secs(5);
/// Most bytes of a request's header, and most fields. Prometheus sends some 300 bytes in 6 fields.
const MOST_HEADER: usize = 8192;
const MOST_FIELDS: usize = 64;
/// Pause before accepting again, when the process or the host is out of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const FIGURES: HeaderValue = HeaderValue::from_static(text::CONTENT_TYPE);

/// Binds the address. Clients wait until [`Server::start`].
///
/// # Errors
/// [`Failure::Host`]: the address is in use, or not of this host.
pub fn bind(address: SocketAddr) -> Result<TcpListener> {
    let cannot =
        || format!("--metrics: cannot listen on {address}: choose another address or port");
    let listener = TcpListener::bind(address).classify(Failure::Host, cannot)?;
    listener.set_nonblocking(true).context("cannot set up a socket")?;
    Ok(listener)
}

/// The running server. Dropping it ends all connections.
pub struct Server(AbortHandle);

impl Server {
    /// Starts serving, and prints the URL on stderr: the kernel may have chosen the port.
    ///
    /// # Errors
    /// The runtime cannot use the listener.
    pub fn start(
        listener: TcpListener,
        questions: mpsc::Sender<Question>,
        names: Names,
    ) -> Result<Self> {
        let address = listener.local_addr().context("cannot find out our address")?;
        let listener = tokio::net::TcpListener::from_std(listener).context("cannot serve")?;
        // Not worth failing for if stderr is closed.
        let _ = writeln!(io::stderr(), "metrics: http://{address}/metrics");
        Ok(Self(tokio::spawn(accept(listener, questions, names)).abort_handle()))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Client {
    task: AbortHandle,
    has_asked: Arc<AtomicBool>,
}

/// Frees a place, by disconnecting a client if all are taken.
fn make_place(clients: &mut VecDeque<Client>) {
    clients.retain(|client| !client.task.is_finished());
    if clients.len() >= MAX_CLIENTS {
        let waits = |client: &Client| !client.has_asked.load(Relaxed);
        let slowest = clients.iter().position(waits).unwrap_or(0);
        if let Some(client) = clients.remove(slowest) {
            client.task.abort();
        }
    }
}

async fn accept(
    listener: tokio::net::TcpListener,
    questions: mpsc::Sender<Question>,
    names: Names,
) {
    // Ends all clients when dropped.
    let mut tasks = JoinSet::new();
    let mut clients = VecDeque::new();
    loop {
        while tasks.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                make_place(&mut clients);
                let has_asked = Arc::new(AtomicBool::new(false));
                let (questions, names) = (questions.clone(), names.clone());
                let asks = Arc::clone(&has_asked);
                // A client's errors and timeouts concern nobody else.
                let serve = async move {
                    drop(timeout(PATIENCE, serve(stream, questions, names, &asks)).await);
                };
                clients.push_back(Client { task: tasks.spawn(serve), has_asked });
            }
            Err(error) => {
                let error = anyhow::Error::new(error).context("cannot accept a client");
                // A full channel means that the daemon has enough to do already.
                let _ = questions.try_send(Question::Failed(error));
                sleep(PAUSE).await;
            }
        }
    }
}

async fn serve(
    stream: TcpStream,
    questions: mpsc::Sender<Question>,
    names: Names,
    has_asked: &AtomicBool,
) -> hyper::Result<()> {
    let service = service_fn(|request| {
        has_asked.store(true, Relaxed);
        // A request's body is not read; it ends with the connection.
        answer(request, &questions, &names)
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .max_buf_size(MOST_HEADER)
        .max_headers(MOST_FIELDS)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

type Answer = Response<Full<Bytes>>;

async fn answer(
    request: Request<Incoming>,
    questions: &mpsc::Sender<Question>,
    names: &Names,
) -> Result<Answer, Infallible> {
    Ok(match request.uri().path() {
        path @ ("/metrics" | "/healthz" | "/readyz") => match *request.method() {
            Method::GET | Method::HEAD => match path {
                "/metrics" => figures(questions, names).await,
                "/readyz" => readiness(questions).await,
                _ => plain(StatusCode::OK, "alive\n"),
            },
            _ => {
                let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, "GET it\n");
                answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
                answer
            }
        },
        _ => plain(StatusCode::NOT_FOUND, "there are /metrics, /healthz and /readyz\n"),
    })
}

async fn figures(questions: &mpsc::Sender<Question>, names: &Names) -> Answer {
    let Some(reading) = ask(questions, Question::Figures).await else { return over() };
    let found = names.of(&reading.sample).await;
    match text::text(reading, found) {
        Ok(text) => {
            let mut answer = plain(StatusCode::OK, text);
            answer.headers_mut().insert(CONTENT_TYPE, FIGURES);
            answer
        }
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

async fn readiness(questions: &mpsc::Sender<Question>) -> Answer {
    let Some(reasons) = ask(questions, Question::Health).await else { return over() };
    if reasons.is_empty() {
        return plain(StatusCode::OK, "ready\n");
    }
    let lines = reasons.iter().map(|reason| format!("{reason}\n"));
    let text = std::iter::once("degraded\n".to_owned()).chain(lines).collect::<String>();
    plain(StatusCode::SERVICE_UNAVAILABLE, text)
}

/// None when the daemon is about to end, or cannot read the engine.
async fn ask<T>(
    questions: &mpsc::Sender<Question>,
    what: fn(oneshot::Sender<T>) -> Question,
) -> Option<T> {
    let (reply, answer) = oneshot::channel();
    questions.send(what(reply)).await.ok()?;
    answer.await.ok()
}

fn over() -> Answer {
    plain(StatusCode::SERVICE_UNAVAILABLE, "the engine cannot be read, or is about to end\n")
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(text.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, TEXT);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(has_asked: bool) -> Client {
        let task = tokio::spawn(std::future::pending::<()>()).abort_handle();
        Client { task, has_asked: Arc::new(AtomicBool::new(has_asked)) }
    }

    #[test]
    fn who_has_not_asked_goes_first() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut clients: VecDeque<_> = (0..MAX_CLIENTS).map(|n| client(n != 3)).collect();
            make_place(&mut clients);
            assert_eq!(clients.len(), MAX_CLIENTS - 1);
            assert!(clients.iter().all(|client| client.has_asked.load(Relaxed)));
            make_place(&mut clients);
            assert_eq!(clients.len(), MAX_CLIENTS - 1, "there is a place");
            clients.push_back(client(true));
            let second = Arc::clone(&clients[1].has_asked);
            make_place(&mut clients);
            assert!(Arc::ptr_eq(&clients[0].has_asked, &second), "if all have asked, the oldest");
        });
    }
}
