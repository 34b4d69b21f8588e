//! Charts: their points in pixels, read back.

use deepseek_v32::evaluation::{Panel, Series, svg};

fn panel(title: &str, points: &[&[(f64, f64)]]) -> Panel {
    let series = points.iter().enumerate().map(|(i, points)| Series {
        name: format!("line <{i}>"),
        points: points.to_vec(),
        dashed: i == 1,
        colour: i,
    });
    Panel { title: title.to_string(), x_label: "x & y".into(), y_label: "$".into(), series: series.collect() }
}

/// The points of every line, in pixels.
fn lines(svg: &str) -> Vec<Vec<(f64, f64)>> {
    let point = |text: &str| text.split_once(',').map(|(x, y)| (x.parse().unwrap(), y.parse().unwrap())).unwrap();
    let points = svg.split("<polyline points=\"").skip(1).map(|rest| rest.split('"').next().unwrap());
    points.map(|points| points.split(' ').map(point).collect()).collect()
}

#[test]
fn pixels_are_linear_in_the_numbers() {
    let positions = [(4096.0, 0.5), (65_536.0, 1.0), (131_072.0, 2.0)];
    let text = svg(&[panel("left", &[&positions, &[(0.0, 0.0), (131_072.0, 2.0)]]), panel("right", &[&[(1.0, 3.0)]])]);
    let text = text.unwrap();
    let lines = lines(&text);
    assert_eq!(lines.len(), 3);
    // Coordinates are rounded to tenths of a pixel; a difference of two and a share of another have twice that.
    let near = |a: f64, b: f64| assert!((a - b).abs() <= 0.21, "{a} and {b}");
    let (first, zero, last) = (&lines[0], lines[1][0], lines[1][1]);
    near(first[2].0, last.0);
    for ((x, y), (at, height)) in positions.iter().zip(first) {
        near(at - zero.0, (last.0 - zero.0) * x / 131_072.0);
        near(zero.1 - height, (zero.1 - last.1) * y / 2.0);
    }
    assert!(lines[2][0].0 > 460.0, "the second panel stands to the right of the first");
    for label in ["32K", "128K", "line &lt;0&gt;", "x &amp; y", "stroke-dasharray"] {
        assert!(text.contains(label), "{label}");
    }
    assert_eq!(text.matches("<text").count(), text.matches("</text>").count());
}

#[test]
fn heights_below_0_stand_below_the_0() {
    let text = svg(&[panel("reward", &[&[(0.0, -0.5), (1.0, 0.0), (2.0, 0.5)]])]).unwrap();
    let points = lines(&text).remove(0);
    let (lower, upper) = (points[0].1 - points[1].1, points[1].1 - points[2].1);
    assert!(lower > 10.0 && (lower - upper).abs() <= 0.21, "{points:?}");
    assert!(text.contains(">-0.4<"), "{text}");
}

#[test]
fn what_cannot_be_drawn_is_named() {
    for (panels, expected) in [
        (vec![], "chart \"\": no panels"),
        (vec![panel("a", &[])], "chart \"a\": a series without points"),
        (vec![panel("a", &[&[(1.0, 1.0)], &[]])], "chart \"a\": a series without points"),
        (vec![panel("a", &[&[(1.0, f64::NAN)]])], "chart \"a\": a number that is not finite or below 0"),
        (vec![panel("a", &[&[(-1.0, 1.0)]])], "chart \"a\": a number that is not finite or below 0"),
    ] {
        assert_eq!(svg(&panels).unwrap_err().to_string(), expected);
    }
    // Nothing but zeros is a flat line.
    assert!(lines(&svg(&[panel("zero", &[&[(0.0, 0.0)]])]).unwrap())[0][0].0.is_finite());
}
