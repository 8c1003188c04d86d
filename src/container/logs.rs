//! Docker's json-file log: one JSON object a line (`log`, `stream`, `time`),
//! size rotation, and reading it back (`logs -f --tail --since --until -t`).
