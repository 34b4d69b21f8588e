//! Arithmetic: `2 * (3 + 4) ^ 2`, also in words.

/// The deepest nesting that is read.
const MAX_DEPTH: usize = 64;

/// The value of an expression of numbers, `+ - * / % ^`, parentheses, and the words plus, minus, times and the like.
pub fn evaluate(text: &str) -> Result<f64, String> {
    let mut parser = Parser { tokens: tokens(text)?, at: 0 };
    let value = parser.sum(0)?;
    match parser.tokens.get(parser.at) {
        None if value.is_finite() => Ok(value),
        None => Err("the result is no finite number".to_string()),
        Some(token) => Err(format!("{token:?} is not expected there")),
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Token {
    Number(f64),
    Sign(char),
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let take = |is: fn(char) -> bool| rest.find(|c: char| !is(c)).unwrap_or(rest.len());
        let length = if first.is_ascii_digit() || first == '.' {
            let length = take(|c| c.is_ascii_digit() || c == '.');
            let number = &rest[..length];
            tokens.push(Token::Number(number.parse().map_err(|_| format!("{number:?} is no number"))?));
            length
        } else if first.is_alphabetic() {
            let length = take(char::is_alphabetic);
            tokens.push(Token::Sign(match &rest[..length] {
                "plus" | "add" => '+',
                "minus" | "subtract" => '-',
                "times" | "x" | "multiply" | "by" => '*',
                "over" | "divide" => '/',
                word => return Err(format!("{word:?} is not understood; use numbers and + - * / % ^ ( )")),
            }));
            length
        } else {
            let sign = match first {
                '+' | '-' | '*' | '/' | '%' | '^' | '(' | ')' => first,
                '×' => '*',
                '÷' => '/',
                '−' => '-',
                other => return Err(format!("{other:?} is not understood; use numbers and + - * / % ^ ( )")),
            };
            tokens.push(Token::Sign(sign));
            first.len_utf8()
        };
        rest = rest[length..].trim_start();
    }
    Ok(tokens)
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
}

impl Parser {
    /// Takes one of the signs, if it is next.
    fn sign(&mut self, signs: &str) -> Option<char> {
        match self.tokens.get(self.at) {
            Some(Token::Sign(sign)) if signs.contains(*sign) => {
                self.at += 1;
                Some(*sign)
            }
            _ => None,
        }
    }

    fn sum(&mut self, depth: usize) -> Result<f64, String> {
        let mut value = self.product(depth)?;
        while let Some(sign) = self.sign("+-") {
            let other = self.product(depth)?;
            value = if sign == '+' { value + other } else { value - other };
        }
        Ok(value)
    }

    fn product(&mut self, depth: usize) -> Result<f64, String> {
        let mut value = self.power(depth)?;
        while let Some(sign) = self.sign("*/%") {
            let other = self.power(depth)?;
            if sign != '*' && other == 0.0 {
                return Err("division by zero".to_string());
            }
            value = match sign {
                '*' => value * other,
                '/' => value / other,
                _ => value % other,
            };
        }
        Ok(value)
    }

    fn power(&mut self, depth: usize) -> Result<f64, String> {
        if depth > MAX_DEPTH {
            return Err("nests too deeply".to_string());
        }
        if self.sign("-").is_some() {
            return Ok(-self.power(depth + 1)?);
        }
        let value = match self.tokens.get(self.at) {
            Some(Token::Number(number)) => {
                self.at += 1;
                *number
            }
            Some(Token::Sign('(')) => {
                self.at += 1;
                let value = self.sum(depth + 1)?;
                self.sign(")").ok_or("a parenthesis is not closed")?;
                value
            }
            _ => return Err("a number is missing".to_string()),
        };
        // A power binds to the right, and more tightly than a minus before it.
        match self.sign("^") {
            Some(_) => Ok(value.powf(self.power(depth + 1)?)),
            None => Ok(value),
        }
    }
}
