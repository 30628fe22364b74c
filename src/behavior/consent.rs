//! Whose behaviour may be looked at, as SQL over the users' table.

use crate::lake;

/// What counts for yes, and what for no without a warning.
const YES: &str = "'true', 'yes', '1'";
const NO: &str = "'false', 'no', '0', ''";

/// The users who have agreed; where the job does not ask, all with events.
pub(super) fn given(column: Option<&str>) -> String {
    match column {
        // Of a user's rows each must say so.
        Some(column) => format!(
            "SELECT user_id FROM all_user_attributes WHERE user_id IS NOT NULL GROUP BY user_id
             HAVING bool_and(coalesce({} IN ({YES}), FALSE))",
            answer(column)
        ),
        None => "SELECT DISTINCT user_id FROM events WHERE user_id IS NOT NULL".to_owned(),
    }
}

/// Some of what the column has that is neither yes nor no.
pub(super) fn unclear(column: &str) -> String {
    let answer = answer(column);
    format!(
        "SELECT DISTINCT {answer} AS answer FROM all_user_attributes
         WHERE {answer} NOT IN ({YES}) AND {answer} NOT IN ({NO}) ORDER BY answer LIMIT 5"
    )
}

/// The rows of a table that are of users who have agreed; all of them where nobody is asked.
pub(super) fn of_consenting(table: &str, consent: Option<&str>) -> String {
    let all = format!("SELECT {table}.* FROM {table}");
    match consent {
        Some(_) => format!("{all} LEFT SEMI JOIN consenting ON {table}.user_id = consenting.user_id"),
        None => all,
    }
}

/// What a user's row answers, as text; a whole number has no decimals.
fn answer(column: &str) -> String {
    let text = format!("lower(trim(CAST({} AS VARCHAR)))", lake::quoted(column));
    format!(r"regexp_replace({text}, '^([01])\.0+$', '\1')")
}
