//! In a real browser: what it finds wrong, keys, the filter, freshness, dark and light; and pictures of it all.

use std::path::{Path, PathBuf};

use openclaw_controller::lab::Browser;
use openclaw_controller::model::{ConditionStatus, ConditionType};
use serde_json::Value;

use crate::fixture::Fleet;
use crate::many;
use crate::support::{Options, PATIENCE, eventually};

/// Where the pictures go: where `PAGE_SHOTS` says, or where nobody needs to look.
fn pictures() -> PathBuf {
    let directory = std::env::var_os("PAGE_SHOTS")
        .map_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).join("shots"), PathBuf::from);
    std::fs::create_dir_all(&directory).unwrap();
    directory
}

/// Goes to a page; again if the machine is too busy for it.
async fn show(browser: &mut Browser, url: &str) {
    eventually(&format!("{url} is shown"), PATIENCE, async || {
        browser.open(url).await.unwrap();
        let shown = browser
            .evaluate("document.getElementById('live') !== null")
            .await
            .unwrap();
        (shown == true).then_some(())
    })
    .await;
}

/// What the browser has found wrong, but that the machine was once too busy to refresh a page.
fn complaints(browser: &Browser) -> Vec<String> {
    let mut complaints = browser.complaints();
    complaints.retain(|complaint| !complaint.contains("status of 503"));
    complaints
}

/// Takes a picture in both schemes, and checks that there is something to see.
async fn picture(browser: &mut Browser, name: &str, width: u32, height: u32) {
    for scheme in ["light", "dark"] {
        browser.prefer(scheme).await.unwrap();
        let path = pictures().join(format!("{name}-{scheme}.png"));
        browser.screenshot(&path, width, height).await.unwrap();
        assert!(
            std::fs::metadata(&path).unwrap().len() > 5_000,
            "{} is empty",
            path.display()
        );
    }
}

async fn text(browser: &mut Browser, expression: &str) -> String {
    match browser.evaluate(expression).await.unwrap() {
        Value::String(text) => text,
        other => panic!("{expression} is {other}"),
    }
}

const FOCUS: &str = "(() => { const e = document.activeElement; return e.id || e.getAttribute('href') || e.name || e.getAttribute('aria-label') \
                     || e.type || e.tagName; })()";

/// How well a text can be read on its background: the ratio of the two, as WCAG has it, at worst among all that is shown.
const WORST_CONTRAST: &str = r"(() => {
    const parse = (c) => { const m = c.match(/[\d.]+/g).map(Number); return { r: m[0], g: m[1], b: m[2], a: m.length > 3 ? m[3] : 1 }; };
    const lum = ({ r, g, b }) => { const f = (v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
        return 0.2126 * f(r) + 0.7152 * f(g) + 0.0722 * f(b); };
    const back = (e) => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c.a === 1) return c; }
        return matchMedia('(prefers-color-scheme: dark)').matches ? { r: 18, g: 18, b: 18 } : { r: 255, g: 255, b: 255 }; };
    let worst = { ratio: 99, text: '' };
    for (const e of document.querySelectorAll('body *')) {
        const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
        if (!own || e.closest('.unseen')) continue;
        const [a, b] = [lum(parse(getComputedStyle(e).color)), lum(back(e))];
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (ratio < worst.ratio) worst = { ratio, text: `${e.tagName}.${e.className}: ${e.textContent.trim().slice(0, 40)}` };
    }
    return worst;
})()";

#[tokio::test(flavor = "multi_thread")]
async fn the_page_works_by_keys_alone_in_dark_and_light_and_the_browser_finds_nothing_wrong() {
    let fleet = Fleet::new().await;
    let (broken, _) = fleet.add_broken().await;
    let controller = fleet.converged(Options::default()).await;
    fleet
        .database
        .gateway_condition(
            broken,
            ConditionType::Ready,
            ConditionStatus::False,
            "ConnectionRefused",
        )
        .await;
    let base = format!("http://{}", controller.address);
    let mut browser = Browser::start().await.unwrap();
    show(&mut browser, &format!("{base}/")).await;

    // Landmarks, headings, headers of tables, labels.
    for (what, expression) in [
        ("a main landmark", "document.querySelectorAll('main').length === 1"),
        (
            "a named navigation",
            "document.querySelector('nav[aria-label]') !== null",
        ),
        ("a search landmark", "document.querySelector('[role=search]') !== null"),
        ("one first heading", "document.querySelectorAll('h1').length === 1"),
        (
            "a scope for each header",
            "[...document.querySelectorAll('th')].every((th) => th.scope === 'col' || th.scope === 'row')",
        ),
        (
            "a label for each field",
            "[...document.querySelectorAll('input:not([type=hidden])')].every((input) => input.labels.length > 0)",
        ),
        (
            "a polite announcement",
            "document.querySelector('[role=status][aria-live=polite]') !== null",
        ),
        ("a language", "document.documentElement.lang === 'en'"),
        (
            "a heading for each section",
            "[...document.querySelectorAll('section')].every((s) => document.getElementById(s.getAttribute('aria-labelledby')))",
        ),
        (
            "no id twice",
            "new Set([...document.querySelectorAll('[id]')].map((e) => e.id)).size === document.querySelectorAll('[id]').length",
        ),
        (
            "nothing wider than the window",
            "document.documentElement.scrollWidth <= innerWidth",
        ),
    ] {
        assert_eq!(browser.evaluate(expression).await.unwrap(), true, "{what}");
    }

    // The first key leads past the navigation; each stop can be seen.
    browser.press("Tab", false).await.unwrap();
    assert_eq!(text(&mut browser, FOCUS).await, "#main");
    browser.press("Enter", false).await.unwrap();
    assert_eq!(text(&mut browser, FOCUS).await, "main");
    browser.press("Tab", false).await.unwrap();
    assert_eq!(text(&mut browser, FOCUS).await, "search");
    let outline = "(() => { const s = getComputedStyle(document.activeElement); return s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2; })()";
    assert_eq!(browser.evaluate(outline).await.unwrap(), true, "the focus can be seen");

    // Searched and filtered by keys alone.
    browser.write("egret").await.unwrap();
    browser.press("Enter", false).await.unwrap();
    browser
        .until("location.search.includes('search=egret') && document.readyState === 'complete'")
        .await
        .unwrap();
    let names = "[...document.querySelectorAll('tbody th a')].map((a) => a.textContent).join()";
    assert_eq!(text(&mut browser, names).await, "Egret");
    show(&mut browser, &format!("{base}/agents")).await;
    assert!(text(&mut browser, names).await.contains("Finch"));
    browser
        .evaluate("document.getElementById('search').focus()")
        .await
        .unwrap();
    browser.press("Tab", false).await.unwrap();
    assert_eq!(text(&mut browser, FOCUS).await, "ready");
    browser.press("Space", false).await.unwrap();
    browser.press("Tab", false).await.unwrap();
    browser.press("Enter", false).await.unwrap();
    browser
        .until("location.search.includes('ready=false') && document.readyState === 'complete'")
        .await
        .unwrap();
    assert_eq!(text(&mut browser, names).await, "Egret,Heron");

    // To an agent and back, by keys.
    browser
        .evaluate("document.querySelector('tbody th a').focus()")
        .await
        .unwrap();
    browser.press("Enter", false).await.unwrap();
    browser
        .until("document.querySelector('h1')?.textContent === 'Agent Egret'")
        .await
        .unwrap();

    // Both schemes can be read.
    for path in ["/", "/agents", &format!("/gateways/{broken}"), "/events"] {
        show(&mut browser, &format!("{base}{path}")).await;
        for (scheme, dark) in [("light", false), ("dark", true)] {
            browser.prefer(scheme).await.unwrap();
            let luminous = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number).reduce((a, b) => a + b) < 384";
            assert_eq!(browser.evaluate(luminous).await.unwrap(), dark, "{path} is {scheme}");
            let worst = browser.evaluate(WORST_CONTRAST).await.unwrap();
            assert!(worst["ratio"].as_f64().unwrap() >= 4.5, "{path} in {scheme}: {worst}");
        }
    }
    show(&mut browser, &format!("{base}/")).await;
    picture(&mut browser, "broken", 1280, 1000).await;
    show(&mut browser, &format!("{base}/gateways/{broken}")).await;
    picture(&mut browser, "broken-gateway", 1280, 900).await;
    show(&mut browser, &format!("{base}/agents/{}", fleet.agent)).await;
    picture(&mut browser, "agent", 1280, 900).await;
    show(&mut browser, &format!("{base}/")).await;
    picture(&mut browser, "narrow", 420, 900).await;
    assert_eq!(
        browser
            .evaluate("document.documentElement.scrollWidth <= innerWidth")
            .await
            .unwrap(),
        true,
        "nothing is wider than a narrow window"
    );
    assert_eq!(complaints(&browser), Vec::<String>::new());
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_keeps_itself_fresh_and_disturbs_nobody() {
    let fleet = Fleet::new().await;
    let controller = fleet.converged(Options::default()).await;
    let mut browser = Browser::start().await.unwrap();
    show(&mut browser, &format!("http://{}/", controller.address)).await;
    picture(&mut browser, "healthy", 1280, 900).await;
    browser
        .evaluate("window.kept = true; document.querySelector('tbody th a[href^=\"/agents/\"]').focus()")
        .await
        .unwrap();
    let focused = text(&mut browser, FOCUS).await;
    browser
        .evaluate("document.getElementById('search').value = 'half a wo'")
        .await
        .unwrap();
    fleet
        .database
        .execute(&format!(
            "UPDATE gateways SET url = 'ws://127.0.0.1:1' WHERE id = '{}'",
            fleet.gateway
        ))
        .await;
    browser
        .until("document.querySelector('h1').textContent.includes('2 of 2 agents and 1 of 1 gateways are not ready')")
        .await
        .unwrap();
    browser
        .until("document.getElementById('announce').textContent.includes('not ready')")
        .await
        .unwrap();
    browser
        .until("document.getElementById('live').textContent.includes('ConnectionRefused')")
        .await
        .unwrap();
    assert_eq!(
        browser.evaluate("window.kept").await.unwrap(),
        true,
        "it was not loaded anew"
    );
    assert_eq!(
        text(&mut browser, "document.getElementById('search').value").await,
        "half a wo"
    );
    assert_eq!(text(&mut browser, FOCUS).await, focused, "the focus stays where it was");
    // The time to the next attempt passes without a request.
    browser
        .until("document.querySelector('[data-end]') !== null")
        .await
        .unwrap();
    // Paused, it stays as it is.
    browser
        .evaluate("document.getElementById('fresh-toggle').click()")
        .await
        .unwrap();
    assert_eq!(
        text(
            &mut browser,
            "document.getElementById('fresh-toggle').getAttribute('aria-pressed')"
        )
        .await,
        "true"
    );
    browser
        .evaluate("document.getElementById('fresh-toggle').click()")
        .await
        .unwrap();
    fleet
        .database
        .execute(&format!(
            "UPDATE gateways SET url = '{}' WHERE id = '{}'",
            fleet.server.url(),
            fleet.gateway
        ))
        .await;
    browser
        .until("document.querySelector('h1').textContent === 'All is as desired'")
        .await
        .unwrap();
    assert_eq!(complaints(&browser), Vec::<String>::new());
    // Without the controller it says so, and shows what it last knew.
    controller.stop().await;
    browser
        .until("document.getElementById('fresh-text').textContent.includes('does not answer')")
        .await
        .unwrap();
    assert!(
        text(&mut browser, "document.getElementById('live').textContent")
            .await
            .contains("Finch")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_javascript_everything_is_there() {
    let fleet = Fleet::new().await;
    let controller = fleet.converged(Options::default()).await;
    let mut browser = Browser::start().await.unwrap();
    let off = serde_json::json!({ "value": true });
    browser.call("Emulation.setScriptExecutionDisabled", off).await.unwrap();
    show(
        &mut browser,
        &format!("http://{}/agents?ready=true", controller.address),
    )
    .await;
    // The tests' own questions are answered all the same.
    let names = "[...document.querySelectorAll('tbody th a')].map((a) => a.textContent).join()";
    assert_eq!(text(&mut browser, names).await, "Finch,Wren");
    assert_eq!(
        browser
            .evaluate("document.getElementById('fresh').hidden")
            .await
            .unwrap(),
        true,
        "it does not claim to be fresh"
    );
    browser
        .evaluate("document.getElementById('search').focus()")
        .await
        .unwrap();
    browser.write("wren").await.unwrap();
    browser.press("Enter", false).await.unwrap();
    browser
        .until("location.search.includes('search=wren') && document.readyState === 'complete'")
        .await
        .unwrap();
    assert_eq!(text(&mut browser, names).await, "Wren");
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_agents_are_as_easy_to_read() {
    let database = many::database().await;
    let controller = many::onlooker(&database).await;
    let base = format!("http://{}", controller.address);
    let mut browser = Browser::start().await.unwrap();
    show(&mut browser, &format!("{base}/")).await;
    picture(&mut browser, "ten-thousand", 1280, 1000).await;
    show(&mut browser, &format!("{base}/agents?offset=5000")).await;
    assert_eq!(
        text(&mut browser, "document.querySelector('.pager span').textContent").await,
        "5001–5050 of 10000"
    );
    browser
        .evaluate("document.querySelector('a[rel=next]').click()")
        .await
        .unwrap();
    browser
        .until("document.querySelector('.pager span')?.textContent === '5051–5100 of 10000'")
        .await
        .unwrap();
    picture(&mut browser, "ten-thousand-list", 1280, 900).await;
    assert_eq!(complaints(&browser), Vec::<String>::new());
    controller.stop().await;
}
