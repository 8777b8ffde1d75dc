//! A real browser, driven by its DevTools protocol.

use std::fmt;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::{SinkExt, StreamExt};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use uuid::Uuid;

use super::guard::{Guard, TAG};
use super::{install, processes};

/// How long anything may take that takes a moment on an idle machine.
const PATIENCE: Duration = Duration::from_mins(2);
/// How long the browser may take to end before it is killed.
const STOP: Duration = Duration::from_secs(5);

/// A headless Chromium with one tab, and a profile of its own that is gone when it is dropped.
pub struct Browser {
    // Dropped first: ends the browser and removes the directory.
    _guard: Guard,
    child: Child,
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    session: String,
    calls: u64,
    /// What the browser has told without having been asked, in order.
    events: Vec<Value>,
}

impl fmt::Debug for Browser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Browser")
            .field("events", &self.events.len())
            .finish_non_exhaustive()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        processes::signal_child(&self.child, Signal::KILL);
        let _ = self.child.wait();
    }
}

impl Browser {
    /// Starts one.
    ///
    /// # Errors
    /// When Chromium can be neither found nor installed, or does not start; the message holds its log.
    pub async fn start() -> Result<Self> {
        let program = install::chromium().await?;
        let directory = std::env::temp_dir().join(format!("openclaw-lab-browser-{}", Uuid::new_v4().simple()));
        let guard = Guard::over(&directory, "TERM")?;
        fs::create_dir(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
        let mut child = spawn(&program, &directory)?;
        let url = match debugging_url(&mut child, &directory).await {
            Ok(url) => url,
            Err(error) => {
                processes::signal_child(&child, Signal::KILL);
                processes::ended(&mut child, STOP).await;
                let log = fs::read_to_string(directory.join("log")).unwrap_or_default();
                return Err(error.context(format!("Chromium does not start; its log:\n{log}")));
            }
        };
        let (socket, _) = timeout(PATIENCE, tokio_tungstenite::connect_async(&url))
            .await
            .context("Chromium does not answer")??;
        let mut browser = Self {
            _guard: guard,
            child,
            socket,
            session: String::new(),
            calls: 0,
            events: Vec::new(),
        };
        let target = browser
            .call("Target.createTarget", json!({ "url": "about:blank" }))
            .await?;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", attach).await?;
        browser.session = text(&attached, "sessionId")?;
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({})).await?;
        }
        Ok(browser)
    }

    /// Calls a method of the DevTools protocol.
    ///
    /// # Errors
    /// What the browser answers, and if it does not.
    pub async fn call(&mut self, method: &str, params: Value) -> Result<Value> {
        self.calls += 1;
        let id = self.calls;
        let mut request = json!({ "id": id, "method": method, "params": params });
        if !self.session.is_empty() {
            request["sessionId"] = self.session.clone().into();
        }
        let exchange = async {
            self.socket.send(Message::text(request.to_string())).await?;
            loop {
                let mut answer = self.receive().await?;
                if answer["id"] == id {
                    ensure!(answer["error"].is_null(), "{method}: {}", answer["error"]);
                    return Ok(answer["result"].take());
                }
                self.events.push(answer);
            }
        };
        timeout(PATIENCE, exchange)
            .await
            .with_context(|| format!("{method} was not answered"))?
    }

    async fn receive(&mut self) -> Result<Value> {
        loop {
            match self.socket.next().await.context("Chromium has ended")?? {
                Message::Text(text) => return Ok(serde_json::from_str(&text)?),
                Message::Close(_) => bail!("Chromium has closed the connection"),
                _ => {}
            }
        }
    }

    /// Goes to a URL, and waits until the page has been loaded.
    ///
    /// # Errors
    /// When that fails.
    pub async fn open(&mut self, url: &str) -> Result<()> {
        let seen = self.events.len();
        let answer = self.call("Page.navigate", json!({ "url": url })).await?;
        ensure!(answer["errorText"].is_null(), "{url}: {}", answer["errorText"]);
        self.loaded(seen).await.with_context(|| format!("{url} was not loaded"))
    }

    /// Waits for the end of a loading that begins after so many events.
    async fn loaded(&mut self, seen: usize) -> Result<()> {
        let loaded = |events: &[Value]| events.iter().any(|event| event["method"] == "Page.loadEventFired");
        timeout(PATIENCE, async {
            while !loaded(&self.events[seen..]) {
                let event = self.receive().await?;
                self.events.push(event);
            }
            Ok(())
        })
        .await?
    }

    /// The value of an expression in the page.
    ///
    /// # Errors
    /// When it throws.
    pub async fn evaluate(&mut self, expression: &str) -> Result<Value> {
        let params = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let mut answer = self.call("Runtime.evaluate", params).await?;
        let thrown = &answer["exceptionDetails"];
        ensure!(thrown.is_null(), "{expression}: {thrown}");
        Ok(answer["result"]["value"].take())
    }

    /// Waits until an expression is true; a page that is just being loaded makes it wait as well.
    ///
    /// # Errors
    /// When it does not become true in time.
    pub async fn until(&mut self, expression: &str) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            let value = self.evaluate(expression).await;
            if matches!(value, Ok(Value::Bool(true))) {
                return Ok(());
            }
            ensure!(
                Instant::now() < end,
                "not within {PATIENCE:?}: {expression}, but {value:?}"
            );
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Presses a key: `Tab`, `Enter`, `Space`, with the shift key or without.
    ///
    /// # Errors
    /// When the browser refuses, or there is no such key here.
    pub async fn press(&mut self, key: &str, shift: bool) -> Result<()> {
        let (name, code, text) = match key {
            "Tab" => ("Tab", 9, ""),
            "Enter" => ("Enter", 13, "\r"),
            "Space" => (" ", 32, " "),
            _ => bail!("there is no key {key} here"),
        };
        let modifiers = if shift { 8 } else { 0 };
        let event = |kind: &str, text: &str| json!({ "type": kind, "key": name, "code": key, "windowsVirtualKeyCode": code, "modifiers": modifiers, "text": text });
        let down = if text.is_empty() { "rawKeyDown" } else { "keyDown" };
        self.call("Input.dispatchKeyEvent", event(down, text)).await?;
        self.call("Input.dispatchKeyEvent", event("keyUp", "")).await?;
        Ok(())
    }

    /// Types a text where the focus is.
    ///
    /// # Errors
    /// When the browser refuses.
    pub async fn write(&mut self, text: &str) -> Result<()> {
        self.call("Input.insertText", json!({ "text": text })).await?;
        Ok(())
    }

    /// Prefers `light` or `dark`.
    ///
    /// # Errors
    /// When the browser refuses.
    pub async fn prefer(&mut self, scheme: &str) -> Result<()> {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": features }))
            .await?;
        Ok(())
    }

    /// Writes what the window, of this size, shows into a PNG file.
    ///
    /// # Errors
    /// When that fails.
    pub async fn screenshot(&mut self, path: &Path, width: u32, height: u32) -> Result<()> {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", size).await?;
        let shot = self.call("Page.captureScreenshot", json!({ "format": "png" })).await?;
        let bytes = STANDARD.decode(text(&shot, "data")?)?;
        fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
    }

    /// What the browser has found wrong with the pages so far: errors and warnings of the console, uncaught exceptions, violations of
    /// the content security policy, requests that failed.
    pub fn complaints(&self) -> Vec<String> {
        let complaint = |event: &Value| {
            let params = &event["params"];
            let is_bad = match event["method"].as_str()? {
                "Log.entryAdded" => matches!(params["entry"]["level"].as_str(), Some("error" | "warning")),
                "Runtime.consoleAPICalled" => matches!(params["type"].as_str(), Some("error" | "warning" | "assert")),
                "Runtime.exceptionThrown" => true,
                "Network.loadingFailed" => params["canceled"] != true,
                _ => false,
            };
            is_bad.then(|| params.to_string())
        };
        self.events.iter().filter_map(complaint).collect()
    }
}

fn text(value: &Value, field: &str) -> Result<String> {
    let text = value[field]
        .as_str()
        .with_context(|| format!("no {field} in {value}"))?;
    Ok(text.to_owned())
}

fn spawn(program: &Path, directory: &Path) -> Result<Child> {
    let log = File::create(directory.join("log"))?;
    let mut command = Command::new(program);
    command
        .args([
            "--headless=new",
            // Root may not have one, nor whoever runs in a container.
            "--no-sandbox",
            "--disable-gpu",
            // A container's /dev/shm is small.
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-extensions",
            "--disable-sync",
            "--hide-scrollbars",
            "--password-store=basic",
            "--remote-debugging-port=0",
        ])
        .arg(format!("--user-data-dir={}", directory.join("profile").display()))
        .arg("about:blank")
        .env("HOME", directory)
        .env("XDG_CACHE_HOME", directory.join("cache"))
        .env("XDG_CONFIG_HOME", directory.join("config"))
        .env("TMPDIR", directory)
        .env(TAG, directory)
        .env_remove("DBUS_SESSION_BUS_ADDRESS")
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // Ctrl-C on the terminal is for the owner to handle.
        .process_group(0);
    command
        .spawn()
        .with_context(|| format!("cannot run {}", program.display()))
}

/// Where the browser listens for us; it writes that down as soon as it does.
async fn debugging_url(child: &mut Child, directory: &Path) -> Result<String> {
    let file: PathBuf = directory.join("profile/DevToolsActivePort");
    let end = Instant::now() + PATIENCE;
    loop {
        if let Ok(written) = fs::read_to_string(&file)
            && let Some((port, path)) = written.split_once('\n')
            && path.starts_with("/devtools/browser/")
        {
            return Ok(format!("ws://127.0.0.1:{port}{}", path.trim_end()));
        }
        if let Some(status) = child.try_wait()? {
            bail!("it has ended ({status})");
        }
        ensure!(Instant::now() < end, "it does not listen after {PATIENCE:?}");
        sleep(Duration::from_millis(50)).await;
    }
}
