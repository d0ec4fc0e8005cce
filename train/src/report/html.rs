//! The little HTML that a report needs. Everything that comes from users goes through [`escape`].

/// Text as HTML text or attribute value.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // Not allowed in HTML.
            c if c.is_control() && c != '\n' && c != '\t' => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

/// A table that scrolls sideways on its own where the screen is narrow; cells are escaped here.
pub fn table(head: &[String], rows: &[Vec<String>]) -> String {
    let cell = |tag: &str, text: &String| format!("<{tag}>{}</{tag}>", escape(text));
    let line = |tag: &str, cells: &[String]| {
        format!("<tr>{}</tr>\n", cells.iter().map(|text| cell(tag, text)).collect::<String>())
    };
    let body: String = rows.iter().map(|row| line("td", row)).collect();
    format!("<div class=\"scroll\"><table><thead>{}</thead><tbody>{body}</tbody></table></div>\n", line("th", head))
}

/// A list with one item for every text; items are escaped here.
pub fn list(items: &[String]) -> String {
    let items: String = items.iter().map(|item| format!("<li>{}</li>\n", escape(item))).collect();
    format!("<ul>{items}</ul>\n")
}

/// Preformatted text, in a part of the page that can be opened.
pub fn folded(title: &str, text: &str) -> String {
    format!("<details><summary>{}</summary><pre>{}</pre></details>\n", escape(title), escape(text.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_users_text_becomes_markup() {
        let evil = "<script>alert('&\"')</script>\u{7}";
        let safe = escape(evil);
        assert_eq!(safe, "&lt;script&gt;alert(&#39;&amp;&quot;&#39;)&lt;/script&gt;\u{fffd}");
        for html in [table(&[evil.into()], &[vec![evil.into()]]), list(&[evil.into()]), folded(evil, evil)] {
            assert!(!html.contains("<script") && !html.contains('\''), "{html}");
        }
    }
}
