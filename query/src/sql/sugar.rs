//! What our SQL writes and sqlparser would not read as it is meant: rewritten in the tokens, before it sees them.
//!
//! `a->b` becomes a name with a dot, which binds as tightly; the parameters of a lambda in brackets become one name; STRUCT and MAP
//! before a bracket become names of functions; digits and the letters right behind them become one name. Such names have quotes that no text can write, by which they are known again.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::{
    ast::{self, FunctionArg, FunctionArgExpr, FunctionArgOperator, FunctionArguments, Ident, VisitMut},
    keywords::Keyword,
    tokenizer::{Token, TokenWithSpan, Word},
};

use super::tokens::is_word;

/// A quote that no text of ours can write.
const QUOTE: char = '[';
/// What begins the name of a field behind `->`.
const FIELD: char = '>';
/// What begins the name that a lambda's parameters become.
const PARAMETERS: char = '(';

/// Words of other databases that sqlparser would take for the end of a SELECT list; here they are names like any other.
const PLAIN: [Keyword; 7] =
    [Keyword::TOP, Keyword::SORT, Keyword::CLUSTER, Keyword::DISTRIBUTE, Keyword::RETURNING, Keyword::VIEW, Keyword::LATERAL];

/// The field that stands for all fields of a struct, `a->*`.
pub const ALL_FIELDS: &str = "*";

/// The field that a name behind `->` means; none for other names.
#[must_use]
pub fn field(ident: &Ident) -> Option<&str> {
    if ident.quote_style == Some(QUOTE) { ident.value.strip_prefix(FIELD) } else { None }
}

/// The parameters of a lambda, given what stands before `=>`.
#[must_use]
pub fn parameters(ident: &Ident) -> Vec<String> {
    match ident.value.strip_prefix(PARAMETERS) {
        Some(names) if ident.quote_style == Some(QUOTE) => names.split(',').map(str::to_owned).collect(),
        _ => vec![ident.value.clone()],
    }
}

/// Writes what is left of it as functions and names that DataFusion's planner knows.
pub(crate) fn lower(written: &mut impl VisitMut) {
    let _: ControlFlow<()> = ast::visit_expressions_mut(written, |expr| {
        lower_one(expr);
        ControlFlow::Continue(())
    });
}

fn lower_one(expr: &mut ast::Expr) {
    match expr {
        ast::Expr::CompoundIdentifier(idents) => idents.iter_mut().for_each(plain),
        ast::Expr::CompoundFieldAccess { access_chain, .. } => {
            for access in access_chain {
                // Behind what is no name DataFusion takes a field as a text.
                if let ast::AccessExpr::Dot(written @ ast::Expr::Identifier(_)) = access
                    && let ast::Expr::Identifier(ident) = &*written
                {
                    let name = field(ident).unwrap_or(&ident.value).to_owned();
                    *written = ast::Expr::value(ast::Value::SingleQuotedString(name));
                }
            }
        }
        ast::Expr::Function(call) => lower_constructor(call),
        _ => {}
    }
}

/// A field as a name in quotes.
fn plain(ident: &mut Ident) {
    if let Some(name) = field(ident) {
        *ident = Ident::with_quote('"', name);
    }
}

/// `STRUCT(f := v)` as `named_struct('f', v)`, `MAP(k := v)` as `map([k], [v])`.
fn lower_constructor(call: &mut ast::Function) {
    let name = call.name.to_string();
    let (is_struct, is_map) = (name.eq_ignore_ascii_case("struct"), name.eq_ignore_ascii_case("map"));
    let FunctionArguments::List(list) = &mut call.args else { return };
    let text = |text: &str| ast::Expr::value(ast::Value::SingleQuotedString(text.to_owned()));
    let pair = |argument: &FunctionArg| match argument {
        FunctionArg::Named { name, arg: FunctionArgExpr::Expr(value), operator: FunctionArgOperator::Assignment } => {
            let is_name = is_map && name.quote_style != Some('\'');
            let key = if is_name { ast::Expr::Identifier(name.clone()) } else { text(&name.value) };
            Some((key, value.clone()))
        }
        FunctionArg::Unnamed(FunctionArgExpr::Expr(ast::Expr::BinaryOp { left, op: ast::BinaryOperator::Assignment, right })) if is_map => {
            Some((left.as_ref().clone(), right.as_ref().clone()))
        }
        _ => None,
    };
    let pairs: Option<Vec<_>> = list.args.iter().map(pair).collect();
    let Some(pairs) = pairs.filter(|pairs| !pairs.is_empty() && (is_struct || is_map)) else { return };
    let unnamed = |expr: ast::Expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(expr));
    let named = if is_struct {
        list.args = pairs.into_iter().flat_map(|(key, value)| [unnamed(key), unnamed(value)]).collect();
        "named_struct"
    } else {
        let (keys, values) = pairs.into_iter().unzip();
        let array = |elem| unnamed(ast::Expr::Array(ast::Array { elem, named: false }));
        list.args = vec![array(keys), array(values)];
        "map"
    };
    call.name = ast::ObjectName::from(vec![Ident::new(named)]);
}

/// Rewrites tokens without whitespace.
pub(super) fn rewrite(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut given: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    let mut at = 0;
    while let Some(one) = tokens.get(at) {
        let next = |ahead: usize| tokens.get(at + ahead).map(|one| &one.token);
        let quoted = |value: &str, mark: char| {
            Token::Word(Word { value: format!("{mark}{value}"), quote_style: Some(QUOTE), keyword: Keyword::NoKeyword })
        };
        match (&one.token, next(1)) {
            (Token::Arrow, Some(Token::Word(word))) => {
                given.push(TokenWithSpan { token: Token::Period, span: one.span });
                given.push(TokenWithSpan { token: quoted(&word.value, FIELD), span: one.span });
                at += 2;
            }
            (Token::Arrow, Some(Token::Mul)) => {
                given.push(TokenWithSpan { token: Token::Period, span: one.span });
                given.push(TokenWithSpan { token: quoted(ALL_FIELDS, FIELD), span: one.span });
                at += 2;
            }
            (token, Some(Token::LParen)) if is_word(token, "STRUCT") || is_word(token, "MAP") => {
                if let Token::Word(word) = token {
                    let word = Word { keyword: Keyword::NoKeyword, ..word.clone() };
                    given.push(TokenWithSpan { token: Token::Word(word), span: one.span });
                }
                at += 1;
            }
            (Token::Word(word), next) if PLAIN.contains(&word.keyword) || is_bare_name(&one.token, next) => {
                let word = Word { keyword: Keyword::NoKeyword, ..word.clone() };
                given.push(TokenWithSpan { token: Token::Word(word), span: one.span });
                at += 1;
            }
            // A name may begin with digits.
            (Token::Number(digits, false), Some(Token::Word(word)))
                if word.quote_style.is_none()
                    && digits.bytes().all(|byte| byte.is_ascii_digit())
                    && tokens.get(at + 1).is_some_and(|word| word.span.start == one.span.end) =>
            {
                let word = Word { value: format!("{digits}{}", word.value), quote_style: None, keyword: Keyword::NoKeyword };
                given.push(TokenWithSpan { token: Token::Word(word), span: one.span });
                at += 2;
            }
            (Token::LParen, Some(Token::Word(_))) => match parameters_at(&tokens, at) {
                Some((names, end)) => {
                    given.push(TokenWithSpan { token: quoted(&names.join(","), PARAMETERS), span: one.span });
                    at = end;
                }
                None => {
                    given.push(one.clone());
                    at += 1;
                }
            },
            _ => {
                given.push(one.clone());
                at += 1;
            }
        }
    }
    given
}

/// Whether a word that begins a constructor or a type is a name here: nothing follows that belongs to one.
fn is_bare_name(token: &Token, next: Option<&Token>) -> bool {
    let follows = |given: &[Token]| next.is_some_and(|next| given.contains(next));
    match () {
        () if is_word(token, "STRUCT") => !follows(&[Token::LParen, Token::Lt, Token::Neq]),
        () if is_word(token, "ARRAY") => !follows(&[Token::LBracket, Token::LParen, Token::Lt]),
        () => false,
    }
}

/// The names of `(a, b) =>` that begins at a place, and the place of `=>`.
fn parameters_at(tokens: &[TokenWithSpan], at: usize) -> Option<(Vec<String>, usize)> {
    let mut names = Vec::new();
    let mut at = at + 1;
    loop {
        let Token::Word(word) = &tokens.get(at)?.token else { return None };
        names.push(word.value.clone());
        match &tokens.get(at + 1)?.token {
            Token::Comma => at += 2,
            Token::RParen => return (tokens.get(at + 2)?.token == Token::RArrow).then_some((names, at + 2)),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::tokens::tokenize;

    fn rewritten(text: &str) -> Vec<String> {
        let tokens = tokenize(text).unwrap().into_iter().filter(|one| !matches!(one.token, Token::Whitespace(_))).collect();
        rewrite(tokens).iter().map(|one| one.token.to_string()).collect()
    }

    #[test]
    fn arrows_and_parameters_become_names() {
        assert_eq!(rewritten("a->b -> c[1]").len(), 8);
        assert_eq!(rewritten("s->*").len(), 3);
        assert_eq!(rewritten("f((a, b) => a + b, x => (x))").len(), 14);
        assert_eq!(rewritten("(a, b), (c)").len(), 9);
        assert_eq!(rewritten("(a, b").len(), 4);
        assert_eq!(rewritten("x AS 1r, 2 r, 3.5e"), ["x", "AS", "1r", ",", "2", "r", ",", "3.5", "e"]);
    }
}
