//! A browser: headless Chromium, driven through chromedriver as any WebDriver client would.
//!
//! Spec: W3C WebDriver (<https://www.w3.org/TR/webdriver2/>); chromedriver's own end points for the console's log and for slow networks.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Outcome;

/// Where Debian's packages put the programs.
const DRIVER: &str = "/usr/bin/chromedriver";
const BROWSER: &str = "/usr/bin/chromium";
/// The name of an element reference (WebDriver, section 12.1).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
/// How often something awaited is looked for.
const LOOK: Duration = Duration::from_millis(100);

/// A browser with one window; it ends when dropped.
#[derive(Debug)]
pub struct Browser {
    driver: Child,
    base: String,
    session: String,
}

/// An element of a page.
#[derive(Debug, Clone)]
pub struct Element(String);

impl Browser {
    /// Starts one that keeps its profile in `folder` and trusts any certificate.
    ///
    /// # Errors
    /// When chromedriver or Chromium do not start.
    pub fn start(folder: &Path) -> Outcome<Self> {
        let profile: PathBuf = folder.join("chromium");
        std::fs::create_dir_all(&profile)?;
        let mut driver = Command::new(DRIVER);
        driver.arg("--port=0").env("HOME", &profile).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut driver = driver.spawn().map_err(|e| format!("cannot run {DRIVER}: {e}"))?;
        let mut lines = BufReader::new(driver.stdout.take().ok_or("no output")?).lines();
        let port = loop {
            let line = lines.next().ok_or("chromedriver did not start")??;
            let port = line.split("on port ").nth(1).map(|rest| rest.trim_end_matches('.').to_owned());
            if let Some(port) = port.filter(|port| line.contains("successfully") && !port.is_empty()) {
                break port;
            }
        };
        // Whatever else it says is read, so that it never waits.
        std::thread::spawn(move || lines.for_each(drop));
        let mut browser = Self { driver, base: format!("http://127.0.0.1:{port}"), session: String::new() };
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--ignore-certificate-errors",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-default-apps",
            "--disable-sync",
            "--disable-quic",
            "--no-first-run",
            "--mute-audio",
            "--hide-scrollbars",
            "--autoplay-policy=no-user-gesture-required",
            "--window-size=1280,900",
        ];
        let mut arguments: Vec<String> = arguments.map(str::to_owned).to_vec();
        arguments.push(format!("--user-data-dir={}", profile.display()));
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "acceptInsecureCerts": true,
            "goog:chromeOptions": { "binary": BROWSER, "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let made = browser.ask("POST", "/session", Some(&wanted))?;
        browser.session = made["sessionId"].as_str().ok_or("no session")?.to_owned();
        let size = json!({ "width": 1280, "height": 900, "deviceScaleFactor": 1, "mobile": false });
        browser.call("POST", "/goog/cdp/execute", &json!({ "cmd": "Emulation.setDeviceMetricsOverride", "params": size }))?;
        Ok(browser)
    }

    /// One command (WebDriver, section 6); gives the `value` of its answer.
    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Outcome<Value> {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "120", "--request", method]);
        curl.args(["--header", "content-type: application/json"]);
        if body.is_some() {
            curl.args(["--data-binary", "@-"]);
        }
        let mut curl =
            curl.arg(format!("{}{path}", self.base)).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        if let (Some(mut stdin), Some(body)) = (curl.stdin.take(), body) {
            stdin.write_all(body.to_string().as_bytes())?;
        }
        let output = curl.wait_with_output()?;
        if !output.status.success() {
            return Err(format!("chromedriver, {method} {path}: {}", String::from_utf8_lossy(&output.stderr).trim()).into());
        }
        let answer: Value = serde_json::from_slice(&output.stdout)?;
        match answer["value"]["error"].as_str() {
            Some(error) => Err(format!("{method} {path}: {error}: {}", answer["value"]["message"].as_str().unwrap_or_default()).into()),
            None => Ok(answer["value"].clone()),
        }
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> Outcome<Value> {
        let path = format!("/session/{}{path}", self.session);
        self.ask(method, &path, (method == "POST").then_some(body))
    }

    /// Goes to an address.
    ///
    /// # Errors
    /// When it does not load.
    pub fn go(&self, url: &str) -> Outcome {
        self.call("POST", "/url", &json!({ "url": url })).map(drop)
    }

    /// The present address.
    ///
    /// # Errors
    /// When the browser does not answer.
    pub fn url(&self) -> Outcome<String> {
        Ok(self.call("GET", "/url", &Value::Null)?.as_str().unwrap_or_default().to_owned())
    }

    /// The first element that fits a CSS selector, as soon as there is one.
    ///
    /// # Errors
    /// When there is none within `limit`.
    pub fn find(&self, css: &str, limit: Duration) -> Outcome<Element> {
        let start = Instant::now();
        loop {
            match self.call("POST", "/element", &json!({ "using": "css selector", "value": css })) {
                Ok(found) => return Ok(Element(found[ELEMENT].as_str().ok_or("no element")?.to_owned())),
                Err(error) if start.elapsed() > limit => {
                    return Err(format!("no {css} on {} within {limit:?}: {error}", self.url().unwrap_or_default()).into());
                }
                Err(_) => std::thread::sleep(LOOK),
            }
        }
    }

    /// Clicks, as a mouse does: what is covered cannot be clicked.
    ///
    /// # Errors
    /// When it cannot be clicked.
    pub fn click(&self, element: &Element) -> Outcome {
        self.call("POST", &format!("/element/{}/click", element.0), &json!({})).map(drop)
    }

    /// Types; into a file input, chooses the file of that path.
    ///
    /// # Errors
    /// When nothing can be typed there.
    pub fn keys(&self, element: &Element, text: &str) -> Outcome {
        self.call("POST", &format!("/element/{}/value", element.0), &json!({ "text": text })).map(drop)
    }

    /// Runs a script in the page and gives what it returns.
    ///
    /// # Errors
    /// When it throws.
    pub fn script(&self, script: &str) -> Outcome<Value> {
        self.call("POST", "/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// Waits until an expression is true and gives its value.
    ///
    /// # Errors
    /// When it is not within `limit`.
    pub fn until(&self, expression: &str, limit: Duration) -> Outcome<Value> {
        let start = Instant::now();
        loop {
            // A page may be on its way to the next.
            let value = self.script(&format!("return {expression}")).unwrap_or_default();
            if !(value.is_null() || value == json!(false) || value == json!(0) || value == json!("")) {
                return Ok(value);
            }
            if start.elapsed() > limit {
                let text = self.script("return document.body.innerText").unwrap_or_default();
                return Err(format!("not within {limit:?}: {expression}; {} says: {text}", self.url().unwrap_or_default()).into());
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Makes the network slow: bytes in a second, up and down.
    ///
    /// # Errors
    /// When the browser refuses.
    pub fn slow_network(&self, bytes_s: u64) -> Outcome {
        let conditions = json!({ "offline": false, "latency": 1, "upload_throughput": bytes_s, "download_throughput": bytes_s });
        self.call("POST", "/chromium/network_conditions", &json!({ "network_conditions": conditions })).map(drop)
    }

    /// Makes it fast again.
    ///
    /// # Errors
    /// When the browser refuses.
    pub fn fast_network(&self) -> Outcome {
        self.call("DELETE", "/chromium/network_conditions", &Value::Null).map(drop)
    }

    /// What the console complained about since the last call: errors and warnings.
    ///
    /// # Errors
    /// When the log cannot be had.
    pub fn complaints(&self) -> Outcome<Vec<String>> {
        let log = self.call("POST", "/se/log", &json!({ "type": "browser" }))?;
        let entries = log.as_array().ok_or("no log")?.iter();
        Ok(entries.filter(|e| e["level"] == "SEVERE" || e["level"] == "WARNING").map(ToString::to_string).collect())
    }

    /// Saves a picture of the window, as PNG.
    ///
    /// # Errors
    /// When it cannot be taken or written.
    pub fn screenshot(&self, file: &Path) -> Outcome {
        let encoded = self.call("GET", "/screenshot", &Value::Null)?;
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let mut decoder = Command::new("base64").arg("--decode").stdin(Stdio::piped()).stdout(std::fs::File::create(file)?).spawn()?;
        decoder.stdin.take().ok_or("no input")?.write_all(encoded.as_str().ok_or("no picture")?.as_bytes())?;
        if decoder.wait()?.success() { Ok(()) } else { Err("the picture is no base64".into()) }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends Chromium with it; a driver that is gone already is as good.
        let _ended = self.call("DELETE", "", &Value::Null);
        let _killed = self.driver.kill();
        let _reaped = self.driver.wait();
    }
}
