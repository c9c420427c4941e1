//! The HTTP server: one thread, one request a connection, a few connections, a bound on each one's time.

use super::{
    health::complaints,
    process::About,
    render::render,
    scrape::{Cores, SCRAPE_MS_MAX},
    text::CONTENT_TYPE,
};
use crate::core::Remote;
use anyhow::Context;
use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{self, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use std::{convert::Infallible, net::TcpListener, rc::Rc, time::Duration};
use tokio::{net::TcpStream, sync::Semaphore};

/// Connections at a time; others wait to be accepted.
pub const CONNECTIONS_MAX: usize = 16;
/// How long a connection may take from its beginning to its end, in ms.
pub const CONNECTION_MS_MAX: u64 = 2 * SCRAPE_MS_MAX;
/// Bytes of a request's head.
pub const REQUEST_BYTES_MAX: usize = 16 << 10;
/// The pause after a failed accept (too many open files), in ms.
const ACCEPT_PAUSE_MS: u64 = 100;

struct Server {
    cores: Cores,
    about: About,
    /// One scrape at a time, so that no number of scrapers holds up a core.
    scraping: Semaphore,
}

/// Serves on a thread of its own until the process ends.
///
/// # Errors
/// No more threads or descriptors.
pub fn serve(listener: TcpListener, remote: Remote, about: About) -> anyhow::Result<()> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("a runtime for the metrics")?;
    let work = move || {
        let server = Rc::new(Server { cores: Cores::new(remote), about, scraping: Semaphore::new(1) });
        let local = tokio::task::LocalSet::new();
        if let Err(error) = local.block_on(&runtime, accept(listener, server)) {
            tracing::error!("metrics are no longer served: {error}");
        }
    };
    std::thread::Builder::new().name("metrics".into()).spawn(work).context("a thread for the metrics")?;
    Ok(())
}

async fn accept(listener: TcpListener, server: Rc<Server>) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let free = Rc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let _ = free.acquire().await.map(tokio::sync::SemaphorePermit::forget);
        match listener.accept().await {
            Ok((stream, _)) => {
                let (server, free) = (Rc::clone(&server), Rc::clone(&free));
                tokio::task::spawn_local(async move {
                    connection(server, stream).await;
                    free.add_permits(1);
                });
            }
            Err(error) => {
                tracing::warn!("metrics: accept: {error}");
                free.add_permits(1);
                tokio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
            }
        }
    }
}

async fn connection(server: Rc<Server>, stream: TcpStream) {
    let service = service_fn(|request| {
        let server = Rc::clone(&server);
        async move { Ok::<_, Infallible>(answer(&server, request).await) }
    });
    let served = http1::Builder::new().keep_alive(false).max_buf_size(REQUEST_BYTES_MAX).serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(Duration::from_millis(CONNECTION_MS_MAX), served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!("metrics: {error}"),
        Err(_) => tracing::debug!("metrics: a connection took longer than {CONNECTION_MS_MAX} ms"),
    }
}

async fn answer(server: &Server, request: Request<Incoming>) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "GET\n".into());
    }
    match request.uri().path() {
        "/metrics" => {
            let _one = server.scraping.acquire().await;
            let all = request.uri().query().is_some_and(|query| query.split('&').any(|part| part == "partitions=1"));
            let text = render(&server.cores.scrape().await, &server.about, all);
            let mut response = plain(StatusCode::OK, text);
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
            response
        }
        "/health" => {
            let complaints = complaints(&server.cores.health().await);
            match complaints.is_empty() {
                true => plain(StatusCode::OK, "ok\n".into()),
                false => plain(StatusCode::SERVICE_UNAVAILABLE, complaints.join("\n") + "\n"),
            }
        }
        _ => plain(StatusCode::NOT_FOUND, "there are /metrics and /health\n".into()),
    }
}

fn plain(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
