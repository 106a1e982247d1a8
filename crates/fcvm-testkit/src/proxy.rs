//! A proxy that lies: between a client and a registry, it does to answers what networks and
//! servers do to them, and remembers what was asked.
//!
//! One thread for each connection, one request for each of them: the proxy says
//! `Connection: close` to both sides and, where no rule applies, moves bytes as they come.

use std::{
    collections::HashMap,
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex},
    thread::{self, JoinHandle},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};

use crate::Registry;

/// What a rule makes of a request or of the answer to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// The answer ends after so many bytes of its body; its head promised all.
    Cut(u64),
    /// Nothing comes for so long; then all is as it should be.
    Delay(Duration),
    /// After so many bytes of the body nothing more comes, until the client goes.
    Stall(u64),
    /// One bit of that byte of the body is another.
    Corrupt(u64),
    /// The registry is not asked: status, further headers, body.
    Answer(u16, Vec<(String, String)>, String),
    /// The client is sent to another `HOST:PORT`, for the same path.
    Redirect(String),
    /// `Content-Length` says so many bytes more than there are, or fewer.
    Length(i64),
    /// `Range` is not looked at: 200, and all of it.
    IgnoreRange,
    /// The answer says 206, and has the range that begins so many bytes later.
    WrongRange(u64),
    /// A body that does not end and does not say how long it is.
    Endless,
    /// The connection is closed without a word.
    Hang,
}

/// To which requests something is done, and what.
#[derive(Debug, Clone)]
pub struct Rule {
    method: String,
    path: String,
    times: Option<u32>,
    skip: u32,
    unless: Option<String>,
    act: Act,
}

/// A request as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrived {
    /// `GET`, …
    pub method: String,
    /// With what follows the `?`.
    pub path: String,
    /// Names in lower case.
    pub headers: HashMap<String, String>,
}

/// The proxy: a server on 127.0.0.1 at a port that was free. Dropped, its connections are cut.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    listener: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    upstream: String,
    /// `Authorization` for the registry where the client sends none.
    credentials: Option<String>,
    state: Mutex<State>,
    stopped: Condvar,
}

#[derive(Debug, Default)]
struct State {
    rules: Vec<Rule>,
    arrived: Vec<Arrived>,
    connections: Vec<TcpStream>,
    stop: bool,
}

impl Rule {
    /// For each `GET` of a path with `path` in it.
    #[must_use]
    pub fn on(path: &str, act: Act) -> Self {
        Self { method: "GET".into(), path: path.into(), times: None, skip: 0, unless: None, act }
    }

    /// For another method.
    #[must_use]
    pub fn method(mut self, method: &str) -> Self {
        self.method = method.into();
        self
    }

    /// So many times; later requests pass.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = Some(times);
        self
    }

    /// Not for the first so many.
    #[must_use]
    pub fn after(mut self, skip: u32) -> Self {
        self.skip = skip;
        self
    }

    /// Not where `Authorization` is that.
    #[must_use]
    pub fn unless_authorized(mut self, authorization: &str) -> Self {
        self.unless = Some(authorization.into());
        self
    }

    fn applies(&mut self, request: &Arrived) -> bool {
        if self.method != request.method
            || !request.path.contains(&self.path)
            || (self.unless.is_some() && request.header("authorization") == self.unless.as_deref())
            || self.times == Some(0)
        {
            return false;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        if let Some(times) = &mut self.times {
            *times -= 1;
        }
        true
    }
}

impl Act {
    /// A status and nothing else.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self::Answer(status, Vec::new(), String::new())
    }

    /// A status with a header.
    #[must_use]
    pub fn status_with(status: u16, header: &str, value: &str) -> Self {
        Self::Answer(status, vec![(header.into(), value.into())], String::new())
    }
}

impl Arrived {
    /// A header, by its name in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// Where the range that is asked for begins, of `Range: bytes=N-…`.
    #[must_use]
    pub fn range_start(&self) -> Option<u64> {
        self.header("range")?.strip_prefix("bytes=")?.split('-').next()?.parse().ok()
    }
}

impl Proxy {
    /// A proxy in front of a registry that speaks plain http.
    #[must_use]
    pub fn to(registry: &Registry) -> Self {
        Self::start(registry.address(), None)
    }

    /// One that logs in by itself, as storage does that a registry redirects to.
    #[must_use]
    pub fn logged_in(registry: &Registry) -> Self {
        let login = registry.login().map(|(user, password)| {
            format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
        });
        Self::start(registry.address(), login)
    }

    fn start(upstream: &str, credentials: Option<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Mutex::new(State::default());
        let shared =
            Arc::new(Shared { upstream: upstream.into(), credentials, state, stopped: Condvar::new() });
        let serving = Arc::clone(&shared);
        let listener = thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.unwrap();
                if serving.state.lock().unwrap().stop {
                    return;
                }
                let shared = Arc::clone(&serving);
                // A client that goes away is the client's business.
                thread::spawn(move || drop(shared.serve(&client)));
            }
        });
        Self { address, shared, listener: Some(listener) }
    }

    /// `127.0.0.1:PORT`
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// The full name of an image behind it: `127.0.0.1:PORT/NAME`.
    #[must_use]
    pub fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// Adds a rule; of several that apply, the first counts.
    pub fn rule(&self, rule: Rule) {
        self.shared.state.lock().unwrap().rules.push(rule);
    }

    /// Lets all pass from now on.
    pub fn clear_rules(&self) {
        self.shared.state.lock().unwrap().rules.clear();
    }

    /// All requests so far, in the order they came.
    #[must_use]
    pub fn arrived(&self) -> Vec<Arrived> {
        self.shared.state.lock().unwrap().arrived.clone()
    }

    /// Forgets all requests so far.
    pub fn forget(&self) {
        self.shared.state.lock().unwrap().arrived.clear();
    }

    /// How many requests came with that method for paths with `path` in them.
    #[must_use]
    pub fn count(&self, method: &str, path: &str) -> usize {
        self.arrived()
            .iter()
            .filter(|request| request.method == method && request.path.contains(path))
            .count()
    }

    /// Where ranges began that were asked for of paths with `path` in them; `None` is all of it.
    #[must_use]
    pub fn ranges(&self, path: &str) -> Vec<Option<u64>> {
        let arrived = self.arrived();
        let asked = arrived.iter().filter(|request| request.method == "GET" && request.path.contains(path));
        asked.map(Arrived::range_start).collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let connections = {
            let mut state = self.shared.state.lock().unwrap();
            state.stop = true;
            std::mem::take(&mut state.connections)
        };
        self.shared.stopped.notify_all();
        for connection in connections {
            // Many are closed already.
            drop(connection.shutdown(Shutdown::Both));
        }
        // So that the listener sees it.
        drop(TcpStream::connect(self.address));
        if let Some(listener) = self.listener.take() {
            drop(listener.join());
        }
    }
}

/// The first line and the headers of a request or answer, and what was read behind them.
struct Head {
    first: String,
    headers: Vec<(String, String)>,
    rest: Vec<u8>,
}

impl Head {
    fn read(stream: &mut impl Read) -> io::Result<Self> {
        let mut bytes = Vec::new();
        let mut chunk = [0; 8 << 10];
        let end = loop {
            if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            match stream.read(&mut chunk)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => bytes.extend_from_slice(&chunk[..read]),
            }
        };
        let rest = bytes.split_off(end + 4);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let mut lines = text.split("\r\n").filter(|line| !line.is_empty());
        let first = lines.next().unwrap_or_default().to_owned();
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Ok(Self { first, headers, rest })
    }

    fn set(&mut self, name: &str, value: impl Into<String>) {
        self.remove(name);
        self.headers.push((name.into(), value.into()));
    }

    fn remove(&mut self, name: &str) {
        self.headers.retain(|(header, _)| header != name);
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    fn status(&self) -> u16 {
        self.first.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    fn write(&self, stream: &mut impl Write) -> io::Result<()> {
        let mut text = format!("{}\r\n", self.first);
        for (name, value) in &self.headers {
            text += &format!("{name}: {value}\r\n");
        }
        stream.write_all((text + "\r\n").as_bytes())
    }
}

impl Shared {
    fn serve(&self, mut client: &TcpStream) -> io::Result<()> {
        self.keep(client)?;
        let mut first = [0];
        // The beginning of TLS, which is not spoken here: told so at once, as real servers do.
        if client.peek(&mut first)? == 1 && first[0] == 0x16 {
            return client.shutdown(Shutdown::Both);
        }
        let mut request = Head::read(&mut client)?;
        let mut words = request.first.split(' ').map(ToOwned::to_owned);
        let arrived = Arrived {
            method: words.next().unwrap_or_default(),
            path: words.next().unwrap_or_default(),
            headers: request.headers.iter().cloned().collect(),
        };
        let act = {
            let mut state = self.state.lock().unwrap();
            state.arrived.push(arrived.clone());
            state.rules.iter_mut().find_map(|rule| rule.applies(&arrived).then(|| rule.act.clone()))
        };
        match &act {
            Some(Act::Answer(status, headers, body)) => return answer(client, *status, headers, body),
            Some(Act::Redirect(host)) => {
                let location = ("location".to_owned(), format!("http://{host}{}", arrived.path));
                return answer(client, 307, &[location], "");
            }
            Some(Act::Hang) => return client.shutdown(Shutdown::Both),
            Some(Act::Delay(time)) => {
                let state = self.state.lock().unwrap();
                drop(self.stopped.wait_timeout_while(state, *time, |state| !state.stop));
            }
            Some(Act::IgnoreRange) => request.remove("range"),
            Some(Act::WrongRange(by)) => {
                if let Some(start) = arrived.range_start() {
                    request.set("range", format!("bytes={}-", start + by));
                }
            }
            _ => {}
        }
        self.forward(client, request, act.as_ref(), arrived.method == "HEAD")
    }

    /// Asks the registry, and gives what it says.
    fn forward(
        &self,
        mut client: &TcpStream,
        mut request: Head,
        act: Option<&Act>,
        no_body: bool,
    ) -> io::Result<()> {
        let mut upstream = TcpStream::connect(&self.upstream)?;
        self.keep(&upstream)?;
        request.set("connection", "close");
        if let Some(credentials) = &self.credentials
            && request.get("authorization").is_none()
        {
            request.set("authorization", credentials.clone());
        }
        request.write(&mut upstream)?;
        upstream.write_all(&request.rest)?;
        let (mut from, mut to) = (client.try_clone()?, upstream.try_clone()?);
        // What the client sends further: a blob that it pushes. Ends with the connection.
        thread::spawn(move || drop(io::copy(&mut from, &mut to)));
        let mut head = loop {
            let head = Head::read(&mut upstream)?;
            if head.status() >= 200 {
                break head;
            }
            head.write(&mut client)?;
        };
        head.set("connection", "close");
        let length: Option<u64> = head.get("content-length").and_then(|length| length.parse().ok());
        let rest = std::mem::take(&mut head.rest);
        let mut body = io::Cursor::new(rest).chain(&upstream);
        match act {
            Some(Act::Length(by)) => {
                let length = length.and_then(|length| length.checked_add_signed(*by)).unwrap_or(0);
                head.set("content-length", length.to_string());
            }
            Some(Act::Endless) => head.remove("content-length"),
            _ => {}
        }
        head.write(&mut client)?;
        if no_body {
            return client.shutdown(Shutdown::Both);
        }
        let mut limited = |bytes: u64| io::copy(&mut body.by_ref().take(bytes), &mut client);
        match act {
            Some(Act::Cut(bytes)) => drop(limited(*bytes)?),
            Some(Act::Stall(bytes)) => {
                limited(*bytes)?;
                let state = self.state.lock().unwrap();
                drop(self.stopped.wait_while(state, |state| !state.stop));
            }
            Some(Act::Corrupt(at)) => {
                limited(*at)?;
                let mut byte = [0];
                body.read_exact(&mut byte)?;
                client.write_all(&[byte[0] ^ 1])?;
                io::copy(&mut body, &mut client)?;
            }
            Some(Act::Endless) => {
                io::copy(&mut body, &mut client)?;
                loop {
                    client.write_all(&[b' '; 64 << 10])?;
                }
            }
            _ => drop(io::copy(&mut body, &mut client)?),
        }
        client.shutdown(Shutdown::Both)?;
        upstream.shutdown(Shutdown::Both)
    }

    /// Has the connection cut when the proxy goes.
    fn keep(&self, connection: &TcpStream) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        if state.stop {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        state.connections.push(connection.try_clone()?);
        Ok(())
    }
}

fn answer(mut client: &TcpStream, status: u16, headers: &[(String, String)], body: &str) -> io::Result<()> {
    let mut head = Head {
        first: format!("HTTP/1.1 {status} As The Test Says"),
        headers: headers.to_vec(),
        rest: Vec::new(),
    };
    head.set("content-length", body.len().to_string());
    head.set("connection", "close");
    head.write(&mut client)?;
    client.write_all(body.as_bytes())?;
    client.shutdown(Shutdown::Write)
}
