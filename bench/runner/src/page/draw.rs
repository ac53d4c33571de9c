//! What all plots have in common: scales, ticks, and the words and lines of a picture.
//!
//! Pictures are SVG inside the page, in a coordinate system of their own that the browser scales. Colours are classes,
//! which the style sheet gives a value for light and for dark; nothing is told by colour alone, since every line
//! and bar has its name beside it.

use super::markup::Markup;

/// The width of every picture, in its own units.
pub const WIDTH: f64 = 760.0;

/// How a value becomes a place.
#[derive(Clone, Copy)]
pub struct Scale {
    /// The values at the two ends.
    pub values: (f64, f64),
    /// The places of the two ends.
    pub places: (f64, f64),
    /// By factors and not by differences.
    pub logarithmic: bool,
}

impl Scale {
    /// The place of a value; values outside are put at the nearer end.
    pub fn place(&self, value: f64) -> f64 {
        let (from, to) = self.values;
        let of = |value: f64| if self.logarithmic { value.max(1e-300).ln() } else { value };
        let part = (of(value.clamp(from, to)) - of(from)) / (of(to) - of(from));
        self.places.0 + (self.places.1 - self.places.0) * part
    }

    /// Values for marks: round ones, five or so; on a logarithmic scale the powers of ten, and some between them if
    /// these are few.
    pub fn ticks(&self) -> Vec<f64> {
        let (from, to) = self.values;
        if self.logarithmic {
            let powers = (from.log10().floor() as i32)..=(to.log10().ceil() as i32);
            let of = |digits: &[f64]| -> Vec<f64> {
                let all = powers
                    .clone()
                    .flat_map(|power| digits.iter().map(move |d| d * 10_f64.powi(power)));
                all.filter(|value| (from..=to).contains(value)).collect()
            };
            let tens = of(&[1.0]);
            return if tens.len() < 3 { of(&[1.0, 2.0, 5.0]) } else { tens };
        }
        let rough = (to - from) / 5.0;
        let power = 10_f64.powf(rough.log10().floor());
        let step =
            [1.0, 2.0, 5.0, 10.0].map(|digit| digit * power).into_iter().find(|s| *s >= rough);
        let step = step.unwrap_or(power * 10.0);
        let first = (from / step).ceil() as i64;
        (first..).map(|n| n as f64 * step).take_while(|value| *value <= to * (1.0 + 1e-9)).collect()
    }
}

/// A picture of this height, with a sentence for those who cannot see it.
pub fn picture(page: &mut Markup, height: f64, words: &str, inside: impl FnOnce(&mut Markup)) {
    let view = format!("0 0 {WIDTH} {}", place(height));
    let attributes = [
        ("xmlns", "http://www.w3.org/2000/svg"),
        ("viewBox", view.as_str()),
        ("role", "img"),
        ("aria-label", words),
    ];
    page.element("svg", &attributes, inside);
    page.line();
}

/// A line.
pub fn line(page: &mut Markup, class: &str, from: (f64, f64), to: (f64, f64)) {
    let [x1, y1, x2, y2] = [from.0, from.1, to.0, to.1].map(place);
    page.empty("line", &[("class", class), ("x1", &x1), ("y1", &y1), ("x2", &x2), ("y2", &y2)]);
}

/// A line through several points.
pub fn path(page: &mut Markup, class: &str, points: &[(f64, f64)]) {
    let points: Vec<String> =
        points.iter().map(|(x, y)| format!("{},{}", place(*x), place(*y))).collect();
    page.empty("polyline", &[("class", class), ("points", &points.join(" "))]);
}

/// A point with words that appear when it is pointed at.
pub fn dot(page: &mut Markup, class: &str, at: (f64, f64), words: &str) {
    let (x, y) = (place(at.0), place(at.1));
    let attributes = [("class", class), ("cx", x.as_str()), ("cy", y.as_str()), ("r", "4")];
    page.element("circle", &attributes, |page| page.leaf("title", &[], words));
}

/// Words at a point; `anchor` is `start`, `middle` or `end`.
pub fn words(page: &mut Markup, class: &str, anchor: &str, at: (f64, f64), text: &str) {
    let (x, y) = (place(at.0), place(at.1));
    let attributes =
        [("class", class), ("x", x.as_str()), ("y", y.as_str()), ("text-anchor", anchor)];
    page.leaf("text", &attributes, text);
}

/// A coordinate, with as many digits as can be seen.
pub fn place(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

/// Moves places apart that are nearer than `gap`, in their order, and back below `end` if they went beyond.
pub fn apart(places: &mut [f64], gap: f64, end: f64) {
    let mut order: Vec<usize> = (0..places.len()).collect();
    order.sort_by(|&a, &b| places[a].total_cmp(&places[b]));
    for pair in order.windows(2) {
        places[pair[1]] = places[pair[1]].max(places[pair[0]] + gap);
    }
    let mut limit = end;
    for &index in order.iter().rev() {
        places[index] = places[index].min(limit);
        limit = places[index] - gap;
    }
}

#[cfg(test)]
mod tests {
    use super::{Scale, apart, place};

    #[test]
    fn ticks_are_round() {
        let scale =
            |from, to, logarithmic| Scale { values: (from, to), places: (0.0, 1.0), logarithmic };
        assert_eq!(scale(0.0, 10.0, false).ticks(), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(scale(0.0, 0.7, false).ticks().len(), 4);
        assert_eq!(scale(50.0, 20_000.0, true).ticks(), [100.0, 1000.0, 10_000.0]);
        assert_eq!(scale(3.0, 30.0, true).ticks(), [5.0, 10.0, 20.0]);
    }

    #[test]
    fn places_are_in_proportion() {
        let linear = Scale { values: (0.0, 10.0), places: (100.0, 200.0), logarithmic: false };
        assert_eq!([0.0, 5.0, 10.0, 99.0].map(|v| linear.place(v)), [100.0, 150.0, 200.0, 200.0]);
        let log = Scale { values: (1.0, 100.0), places: (200.0, 0.0), logarithmic: true };
        assert!((log.place(10.0) - 100.0).abs() < 1e-9);
        assert_eq!(log.place(0.0), 200.0);
    }

    #[test]
    fn names_do_not_lie_on_each_other() {
        let mut places = [10.0, 50.0, 12.0, 11.0];
        apart(&mut places, 5.0, 100.0);
        assert_eq!(places, [10.0, 50.0, 20.0, 15.0]);
        let mut places = [99.0, 98.0, 97.0];
        apart(&mut places, 5.0, 100.0);
        assert_eq!(places, [100.0, 95.0, 90.0]);
    }

    #[test]
    fn coordinates_are_short() {
        assert_eq!([1.0, 1.25, -0.04].map(place), ["1", "1.2", "-0"]);
    }
}
