//! The pages that `polaron report` and `polaron compare` write.

use std::path::Path;
use std::process::Command;

use crate::support::Place;

const SIZES: &[&str] = &["--set", "model.d_model=16", "--set", "model.layers=1", "--set", "model.heads=2"];
const MORE: &[&str] = &["--set", "model.context=16", "--set", "train.batch=4", "--set", "schedule.warmup=5"];

/// A comparison of two optimizers with two learning rates each.
fn compared() -> Place {
    let place = Place::new();
    let plan = "optimizers = [{ name = 'a.b', stack = 'adamw' }, { name = 'muon', stack = 'muon' }]\n\
                [compare]\nextensions = 0\n[train]\nspectra_every = 10";
    place.write("plan.toml", plan.as_bytes());
    let rest = ["--data", "text.txt", "--threads", "2", "--steps", "40", "--tune-steps", "20", "--lrs", "0.003,0.01"];
    let arguments = [&["compare", "plan.toml", "--out", "c"], SIZES, MORE, &rest].concat();
    place.run(&arguments).succeeds();
    place
}

fn text(place: &Place, name: &str) -> String {
    String::from_utf8(place.read(name)).unwrap()
}

fn curves(html: &str) -> usize {
    html.lines().filter(|line| line.starts_with("<polyline") && line.contains("data-series=")).count()
}

/// Nothing is loaded from anywhere, and every element is closed where it must be.
#[track_caller]
fn is_one_good_page(html: &str) {
    assert!(html.len() < 2_000_000, "{} bytes", html.len());
    for outside in [" src=", "@import", "url(", "<link rel=\"stylesheet", "<iframe", "fetch(", "XMLHttpRequest"] {
        assert!(!html.contains(outside), "{outside}");
    }
    for reference in html.split("href=\"").skip(1) {
        assert!(reference.starts_with("data:") || reference.starts_with('#'), "{:.60}", reference);
    }
    let mut open: Vec<&str> = Vec::new();
    let mut rest = html;
    while let Some((_, after)) = rest.split_once('<') {
        let (tag, behind) = after.split_once('>').expect("a tag that does not end");
        rest = behind;
        let name = tag.trim_start_matches('/').split([' ', '\n', '/']).next().unwrap();
        match name {
            "!doctype" | "meta" | "link" | "input" | "br" => {}
            _ if tag.ends_with('/') => {}
            _ if tag.starts_with('/') => assert_eq!(open.pop(), Some(name), "near {:.80}", rest),
            "style" | "script" => {
                let end = format!("</{name}>");
                rest = rest.split_once(end.as_str()).expect("style or script does not end").1;
            }
            _ => open.push(name),
        }
    }
    assert!(open.is_empty(), "{open:?} are not closed");
}

#[test]
fn the_page_of_a_comparison_holds_everything() {
    let place = compared();
    let html = text(&place, "c/report.html");
    is_one_good_page(&html);
    // Two losses over three axes, one sensitivity and twelve numbers of the spectra, in two sizes, for two optimizers.
    assert_eq!(curves(&html), (2 * 3 + 1 + 12) * 2 * 2);
    let verdict = html.find("class=\"verdict\"").unwrap();
    assert!(verdict < html.find("<table").unwrap() && verdict < html.find("<svg").unwrap(), "the verdict comes first");
    for part in
        ["a.b", "final loss", "optimizer share", "÷4", "Spectra", "tensors, each once", "[train]", "polaron compare"]
    {
        assert!(html.contains(part), "{part}");
    }
    // Tuning runs record no spectra.
    let recorded = |run: &str| place.events(run).iter().filter(|event| event["event"] == "spectra").count();
    assert_eq!((recorded("c/runs/verdict-muon-s1"), recorded("c/runs/tune-muon-01-lr0.003-s10001")), (5, 0));
    place.run(&["report", "c", "--out", "page.html"]).succeeds();
    assert_eq!(text(&place, "page.html"), html, "the page depends on the folder alone");
    place.run(&["report", "c", "--csv", "c.csv"]).succeeds();
    let table = text(&place, "c.csv");
    for run in ["tune-muon-01-lr0.003-s10001,train,1,", "verdict-muon-s1,spectra,0,"] {
        assert!(table.contains(&format!("\n{run}")), "{run}");
    }
}

#[test]
fn several_comparisons_begin_with_the_profile_of_their_common_optimizers() {
    let place = compared();
    let rest = ["--data", "text.txt", "--threads", "2", "--steps", "30", "--lrs", "0.003"];
    let other = ["compare", "plan.toml", "--out", "wider", "--optimizers", "muon,a.b,sgd", "--set", "model.d_model=24"];
    place.run(&[&other, &SIZES[2..], MORE, &rest].concat()).succeeds();
    place.run(&["report", "c", "wider", "--out", "both.html"]).succeeds();
    let page = text(&place, "both.html");
    is_one_good_page(&page);
    let profile = page.split("</section>").next().unwrap();
    assert!(profile.contains("<h1>2 optimizers over 2 tasks</h1>"), "{profile:.2000}");
    assert!(
        profile.contains("steps beyond the best optimizer&#39;s, %") && profile.contains("score, seconds"),
        "{profile:.2000}"
    );
    // Two optimizers, by step and by time, each drawn for wide and for narrow screens.
    assert_eq!(curves(profile), 8);
    assert!(!profile.contains("sgd") && page.contains("sgd"));
    assert!(!text(&place, "c/report.html").contains("over 2 tasks"));
}

#[test]
fn pages_of_runs_can_be_made_at_any_time() {
    let place = Place::new();
    let one = ["--steps", "30", "--set", "train.valid_every=10", "--set", "train.spectra_every=10", "--out", "one"];
    place.train(&one).succeeds();
    let drawn = text(&place, "one/report.html");
    place
        .train(&["--steps", "20", "--set", "train.valid_every=10", "--optimizer", "adamw", "--out", "two & <b>"])
        .succeeds();
    place.train(&["--steps", "20", "--lr", "1e30", "--optimizer", "sgd", "--out", "bad"]).fails(1, &["diverged"]);
    let said = place.run(&["report", "one"]).succeeds();
    assert!(said.out.contains("one/report.html"), "{said:?}");
    let html = text(&place, "one/report.html");
    assert_eq!(html, drawn, "training ends with the page");
    assert!(text(&place, "bad/report.html").contains("the run diverged at step"));
    is_one_good_page(&html);
    // Two losses over three axes, and twelve numbers of the spectra for as many kinds of matrices as there are colours.
    assert_eq!(curves(&html), (2 * 3 + 12 * 8) * 2);
    assert!(html.contains("blocks.*.attn.wq") && html.contains("Kinds not drawn: 1;"));
    place.run(&["report", "one", "two & <b>", "bad"]).succeeds();
    let html = text(&place, "report.html");
    is_one_good_page(&html);
    assert!(html.contains("two &amp; &lt;b&gt;") && !html.contains("<b>two"), "names are escaped");
    assert!(html.contains("the run diverged at step"), "a reason is shown");
    // The third has neither validation nor more than a step.
    assert!(curves(&html) >= 2 * 3 * 2 * 2, "{}", curves(&html));
    // The folder of a run stays one.
    place.train(&one).succeeds();
}

#[test]
fn a_page_that_cannot_be_written_fails_no_training() {
    let place = Place::new();
    place.train(&["--steps", "4", "--out", "run"]).succeeds();
    let metrics = text(&place, "run/metrics.jsonl");
    std::fs::remove_file(place.path("run/report.html")).unwrap();
    std::fs::create_dir_all(place.path("run/report.html/in the way")).unwrap();
    // As if it had been killed before its end was noted.
    let (open, _) = metrics.trim_end().rsplit_once('\n').unwrap();
    place.write("run/metrics.jsonl", format!("{open}\n").as_bytes());
    let said = place.train(&["--steps", "4", "--out", "run"]).succeeds();
    assert!(said.err.contains("warning: no report.html was written: cannot write"), "{said:?}");
}

#[test]
fn recording_spectra_changes_no_weight() {
    let place = Place::new();
    place.train(&["--steps", "25", "--out", "without"]).succeeds();
    place.train(&["--steps", "25", "--set", "train.spectra_every=10", "--out", "with"]).succeeds();
    assert_eq!(place.weights("with", 25), place.weights("without", 25));
    let events = place.events("with");
    let spectra: Vec<_> = events.iter().filter(|event| event["event"] == "spectra").collect();
    assert_eq!(spectra.iter().map(|event| event["step"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 10, 20, 25]);
    let matrices = spectra[3]["matrices"].as_array().unwrap();
    let names: Vec<&str> = matrices.iter().map(|matrix| matrix["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"blocks.0.attn.wq.weight") && !names.iter().any(|name| name.contains("norm")), "{names:?}");
    for matrix in matrices {
        let [largest, smallest] = ["largest", "smallest"].map(|key| matrix[key].as_f64().unwrap());
        // 16 is the width of the model.
        assert!(0.0 < smallest && smallest < largest, "{matrix}");
        let ranks = ["stable_rank", "entropy_rank", "roy_vetterli_rank"].map(|key| matrix[key].as_f64().unwrap());
        assert!(1.0 < ranks[0] && ranks.is_sorted() && ranks[2] <= 16.0, "{matrix}");
        let nuclear = matrix["nuclear_rank"].as_f64().unwrap();
        assert!(ranks[0] < nuclear && nuclear < ranks[2], "{matrix}");
        assert!(matrix.get("effective_rank").is_none(), "others mean another number by it");
        // Weights of 25 steps are those of the start, which are noise, and little more.
        let [sigma, edge] = ["sigma", "edge"].map(|key| matrix["bulk"][key].as_f64().unwrap());
        assert!(0.0 < sigma && sigma < edge && matrix["bulk"]["outliers"].as_f64().unwrap() < 4.0, "{matrix}");
        let [last, start] = ["since_last", "since_start"].map(|key| matrix[key]["norm"].as_f64().unwrap());
        assert!(0.0 < last && last < start, "{matrix}");
        for number in [&matrix["overlap"]["rows"], &matrix["overlap"]["columns"], &matrix["bulk_scale"]] {
            assert!((0.0..10.0).contains(&number.as_f64().unwrap()), "{matrix}");
        }
        assert!(matrix["since_last"]["stable_rank"].as_f64().unwrap() >= 1.0, "{matrix}");
    }
    let first = &spectra[0]["matrices"][0];
    assert!(["overlap", "since_last", "since_start"].iter().all(|key| first.get(key).is_none()), "{first}");
}

#[test]
fn a_frozen_matrix_is_said_to_be_one_and_has_no_change() {
    let place = Place::new();
    let frozen = ["--set", "train.freeze=[\"embed*\"]"];
    place
        .train(&[&["--steps", "4", "--set", "train.spectra_every=2", "--out", "run"], &frozen[..]].concat())
        .succeeds();
    let events = place.events("run");
    let last = events.iter().rfind(|event| event["event"] == "spectra").unwrap();
    for matrix in last["matrices"].as_array().unwrap() {
        let is_frozen = matrix["name"].as_str().unwrap().starts_with("embed");
        assert_eq!((matrix["frozen"] == true, matrix.get("since_last").is_none()), (is_frozen, is_frozen), "{matrix}");
    }
}

#[test]
fn a_folder_without_anything_to_report_is_refused() {
    let place = Place::new();
    place.run(&["report", "nowhere"]).fails(2, &["`nowhere`", "neither a run nor a comparison"]);
    place.run(&["report"]).fails(2, &["DIR"]);
}

/// What the page says about itself once it is shown: errors, text that leaves its chart or another's place.
const PROBE: &str = r#"<script>
var problems = [];
window.addEventListener("error", function (event) { problems.push("error: " + event.message); });
window.addEventListener("load", function () {
  if (document.documentElement.scrollWidth > window.innerWidth + 1) problems.push("the page is wider than the window");
  document.querySelectorAll("svg").forEach(function (svg) {
    var frame = svg.getBoundingClientRect();
    if (!frame.width) return;
    var boxes = [];
    svg.querySelectorAll("text").forEach(function (text) {
      var box = text.getBoundingClientRect();
      if (box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 1 || box.bottom > frame.bottom + 1)
        problems.push("outside: " + text.textContent.trim());
      if (box.height && Math.min(box.height, box.width) < 9 && text.textContent.trim().length > 1) problems.push("tiny: " + text.textContent.trim());
      boxes.forEach(function (other) {
        if (box.left < other.right - 1 && other.left < box.right - 1 && box.top < other.bottom - 1 && other.top < box.bottom - 1)
          problems.push("overlapping: " + text.textContent.trim());
      });
      boxes.push(box);
    });
  });
  // A pointer over any chart, on every tab, shows a value of every curve; over hidden curves it shows nothing.
  function hover(expected) {
    document.querySelectorAll(".chart").forEach(function (chart) {
      var svg = Array.prototype.find.call(chart.querySelectorAll("svg"), function (svg) { return svg.clientWidth > 0; });
      if (!svg) return;
      var frame = svg.getBoundingClientRect();
      [0.02, 0.5, 0.98].forEach(function (share) {
        var at = { bubbles: true, clientX: frame.left + share * frame.width, clientY: frame.top + 30 };
        chart.dispatchEvent(new PointerEvent("pointermove", at));
        var tip = chart.querySelector(".tip"), rows = tip ? tip.querySelectorAll(".row").length : 0;
        var curves = expected ? JSON.parse(chart.dataset.curves).filter(function (curve) { return curve[1].length; }).length : 0;
        if (rows !== curves) problems.push(rows + " values for " + curves + " curves by " + chart.dataset.x);
        if (!tip) return;
        var box = tip.getBoundingClientRect();
        if (box.left < frame.left - 1 || box.right > frame.right + 1) problems.push("the values leave the chart");
        if (/NaN|undefined|Infinity/.test(tip.textContent)) problems.push("no value: " + tip.textContent);
        // The beginning of a curve may lie above the chart, its end does not.
        if (share > 0.9 && !svg.querySelector("g circle")) problems.push("no mark");
      });
      chart.dispatchEvent(new PointerEvent("pointerleave"));
      if (chart.querySelector(".tip")) problems.push("the values stay");
      hovered += 1;
    });
  }
  var hovered = 0;
  document.querySelectorAll(".tabs > input").forEach(function (input) { input.click(); hover(true); });
  if (!hovered) problems.push("no chart was tried");
  document.querySelectorAll(".key").forEach(function (key) { key.click(); });
  hover(false);
  document.documentElement.setAttribute("data-shown", problems.length ? problems.join("; ") : "well");
});
</script>
"#;

fn browser() -> Option<&'static str> {
    let found = |name: &&&str| Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success());
    ["chromium", "chromium-browser", "google-chrome"].iter().find(found).copied()
}

/// What a page says about itself in a window of this width.
fn shown(browser: &str, page: &Path, width: u32) -> String {
    let profile = tempfile::tempdir().unwrap();
    let output = Command::new(browser)
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("--window-size={width},900"))
        .arg(format!("file://{}", page.display()))
        .output()
        .unwrap();
    let dom = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = dom.split_once("data-shown=\"").and_then(|(_, rest)| rest.split_once('"'));
    said.map_or_else(|| format!("nothing: {}", String::from_utf8_lossy(&output.stderr)), |(said, _)| said.to_owned())
}

#[test]
fn pages_are_shown_without_errors_and_text_fits() {
    let Some(browser) = browser() else {
        eprintln!("skipped: there is no chromium here to open the page with");
        return;
    };
    let place = compared();
    place
        .train(&["--steps", "30", "--set", "train.valid_every=10", "--set", "train.spectra_every=10", "--out", "run"])
        .succeeds();
    for name in ["c/report.html", "run/report.html"] {
        let probed = text(&place, name).replacen("<title>", &format!("{PROBE}<title>"), 1);
        place.write("probed.html", probed.as_bytes());
        for width in [1400, 500] {
            assert_eq!(shown(browser, &place.path("probed.html"), width), "well", "{name} at {width} pixels");
        }
    }
}
