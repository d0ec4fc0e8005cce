use super::*;

fn chart(log_x: bool) -> Chart {
    let line = |key: usize| Series {
        key,
        points: (1..=2000).map(|i| (f64::from(i), 4.0 / f64::from(i).ln_1p() + key as f64)).collect(),
        band: (1..=2000).map(|i| (f64::from(i), 1.0, 2.0)).collect(),
    };
    Chart { x: "steps".into(), y: "loss <&>".into(), log_x, cut: !log_x, series: vec![line(0), line(1), line(9)] }
}

#[test]
fn every_series_is_one_curve_in_both_sizes() {
    for log_x in [false, true] {
        let html = chart(log_x).html();
        assert_eq!(html.matches("<svg").count(), 2);
        for (key, colour) in [(0, 0), (1, 1), (9, 1)] {
            let curve = format!("stroke=\"var(--c{colour})\" data-series=\"{key}\"");
            let curves = html.lines().filter(|line| line.starts_with("<polyline") && line.contains(&curve)).count();
            assert_eq!(curves, 2, "log {log_x}");
        }
        assert!(!html.contains("#0") && !html.contains("#1"), "a placeholder colour is left");
        // A page has up to twenty of these and may have two megabytes; usual charts are far smaller.
        assert!(html.len() < 3 * 75_000, "{}", html.len());
    }
}

#[test]
fn many_curves_are_drawn_with_fewer_points() {
    let Chart { series, .. } = chart(false);
    let series = (0..40).map(|key| Series { key, ..series[0].clone() }).collect();
    let html = Chart { series, ..chart(false) }.html();
    // A page of a comparison has about ten such charts, and two megabytes.
    assert!(html.len() < 200_000, "{}", html.len());
}

#[test]
fn a_curve_of_few_points_is_shown_whole() {
    let of = |count: u32| {
        let points: Vec<(f64, f64)> = (1..=count).map(|i| (f64::from(i) * 500.0, 4.0 / f64::from(i))).collect();
        let chart = Chart { series: vec![Series { key: 0, points, band: Vec::new() }], ..chart(false) };
        let [_, y] = chart.bounds().unwrap();
        y.1 >= 4.0
    };
    for few in 1..20 {
        assert!(of(few), "{few} points");
    }
    assert!(!of(40));
}

#[test]
fn names_are_escaped() {
    let html = chart(false).html();
    assert!(html.contains("loss &lt;&amp;&gt;") && !html.contains("loss <"));
}

#[test]
fn a_chart_of_nothing_is_nothing() {
    let empty = Chart { series: Vec::new(), ..chart(false) };
    assert_eq!(empty.html(), "");
    let nan =
        Chart { series: vec![Series { key: 0, points: vec![(1.0, f64::NAN)], band: Vec::new() }], ..chart(false) };
    assert_eq!(nan.html(), "");
    let one = Chart { series: vec![Series { key: 0, points: vec![(1.0, 2.0)], band: Vec::new() }], ..chart(false) };
    assert!(one.html().contains("<circle"));
}

#[test]
fn the_values_are_stored_with_the_drawing() {
    let points = vec![(1e-3, 2.123_456), (4e-3, f64::NAN), (1e-2, 1.5)];
    let chart = Chart { series: vec![Series { key: 3, points, band: Vec::new() }], ..chart(true) };
    let html = chart.html();
    assert!(html.contains("data-curves=\"[[3,[0.001,0.01],[2.1235,1.5]]]\""), "{:.400}", html);
    assert!(html.contains("data-x=\"steps\" data-log=\"true\" data-ends=\"[0.0008,0.0125,"), "{:.400}", html);
    // Margins and label areas of the wide size, twice as large.
    assert!(html.contains("data-frame=\"132 16 1688 664\""), "{:.900}", html);
}

#[test]
fn curves_are_cut_at_the_top_of_the_chart() {
    let cut = clipped(&[(0.0, 4.0), (1.0, 2.0), (2.0, f64::NAN), (3.0, 1.0)], (0.0, 3.0));
    assert_eq!(cut, [(0.5, 3.0), (1.0, 2.0), (3.0, 1.0)]);
}

#[test]
fn thinning_keeps_the_ends() {
    let points: Vec<(f64, f64)> = (0..10_000).map(|i| (f64::from(i), 1.0)).collect();
    let thin = thinned(&points, MOST_POINTS, |p| p.0, |ps| (average(ps, |p| p.0), average(ps, |p| p.1)));
    assert!(thin.len() <= MOST_POINTS + 1);
    assert_eq!(thin.last(), points.last());
}

#[test]
fn labels_are_short() {
    let shown = [0.0, 0.02, 1e-4, 2.5, 400.0, 12_000.0, 3_070_000.0].map(number);
    assert_eq!(shown, ["0", "0.02", "1e-4", "2.5", "400", "12k", "3.07M"]);
}
