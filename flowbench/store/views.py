"""Owns the views for people who read the database with other tools; the code never reads them."""

from sqlalchemy import Connection

FIXED = (1, 2, 3, 4, 5, 6, 8, 10, 16, 18, 20, 35, 50, 79, 100, 160)  # which have a column
NFES = {**{f"nfe_{nfe}": nfe for nfe in FIXED}, "nfe_auto": 0}

# By dialect: the options that were set, as ` name=value` in the order of their names, numbers
# as the database spells them.
WORDS = {
    "sqlite": """
(SELECT group_concat(word, '') FROM (
  SELECT ' ' || key || '=' || CASE type
    WHEN 'true' THEN 'True' WHEN 'false' THEN 'False' WHEN 'null' THEN 'None'
    WHEN 'array' THEN replace(replace(value, ',', ', '), '"', '''')
    ELSE value END AS word
  FROM json_each(runs.spec, '$.changed') ORDER BY key))""",
    "postgresql": """
(SELECT string_agg(' ' || changed.key || '=' || CASE json_typeof(changed.value)
    WHEN 'boolean' THEN initcap(changed.value #>> '{}') WHEN 'null' THEN 'None'
    WHEN 'array' THEN replace(changed.value #>> '{}', '"', '''')
    ELSE changed.value #>> '{}' END, '' ORDER BY changed.key COLLATE "C")
  FROM json_each(runs.spec -> 'changed') AS changed)""",
}
PARTS = {"steps": "budget.steps", "batch": "budget.batch", "code": "code", "data": "data"}

# What `scores.measured` lists: of each run the newest finished generation, or the current one;
# of equal scores the newest. `value` is null where `kind` is not finite.
LEADERBOARD = """
WITH shown AS (
  SELECT run_id,
    coalesce(max(CASE WHEN outcome = 'ok' THEN generation END), max(generation)) AS generation
  FROM attempts GROUP BY run_id
), described AS (
  SELECT runs.*, runs.method || coalesce({words}, '') AS variant,
    {steps} || ' x ' || {batch} AS budget, substr({code}, 1, 6) AS code,
    substr({data}, 1, 6) AS data
  FROM runs
), placed AS (
  SELECT attempts.run_id, attempts.generation, attempts.outcome, attempts.origin, scores.subject,
    scores.name AS metric, scores.nfe, scores.n, scores.seed AS noise, scores.value, scores.kind,
    scores.goal, scores.fingerprint, row_number() OVER (
      PARTITION BY attempts.run_id, scores.subject, scores.name, scores.nfe, scores.n, scores.seed
      ORDER BY attempts.number DESC) AS place
  FROM scores JOIN attempts ON attempts.id = scores.attempt_id
    JOIN shown ON shown.run_id = attempts.run_id AND shown.generation = attempts.generation
)
SELECT described.dataset, described.method, described.variant, described.name AS run,
  described.seed, placed.subject, placed.metric,
  CASE placed.nfe WHEN -1 THEN 'run' WHEN 0 THEN 'auto' ELSE CAST(placed.nfe AS TEXT) END AS nfe,
  placed.n, placed.noise, placed.value, placed.kind, placed.goal, placed.outcome,
  placed.generation, described.budget, described.code, described.data, placed.fingerprint,
  placed.origin
FROM placed JOIN described ON described.id = placed.run_id
WHERE placed.place = 1"""

# Means over the training seeds of what may be averaged; null where one of them is not finite.
# `others` counts the scores at an NFE that has no column.
METHOD_BY_NFE = """
SELECT dataset, variant, metric, n, noise, budget, code, data, fingerprint,
  count(DISTINCT seed) AS seeds, count(DISTINCT run) AS runs, {means},
  sum(CASE WHEN nfe IN ({shown}) THEN 0 ELSE 1 END) AS others
FROM leaderboard WHERE subject = 'model' AND nfe <> 'run'
GROUP BY dataset, variant, metric, n, noise, budget, code, data, fingerprint"""

MEAN = """
  CASE WHEN sum(CASE WHEN nfe = '{nfe}' AND kind <> 'finite' THEN 1 ELSE 0 END) = 0
    THEN avg(CASE WHEN nfe = '{nfe}' THEN value END) END AS {name}"""

FAILURES = """
WITH placed AS (
  SELECT attempts.*, row_number() OVER (
    PARTITION BY run_id ORDER BY generation DESC, number DESC) AS place
  FROM attempts
)
SELECT runs.dataset, runs.method, runs.method || coalesce({words}, '') AS variant,
  runs.name AS run, runs.seed, placed.number AS attempt, placed.outcome, placed.error_type,
  placed.error_text AS reason, placed.started, placed.ended, placed.origin
FROM placed JOIN runs ON runs.id = placed.run_id
WHERE placed.place = 1 AND placed.outcome NOT IN ('ok', 'running')"""

COSTS = """
SELECT dataset, method, variant, run, seed, budget,
  max(CASE WHEN metric = 'train-seconds' THEN value END) AS train_seconds,
  max(CASE WHEN metric = 'train-seconds:teacher' THEN value END) AS teacher_seconds,
  max(CASE WHEN metric = 'train-images' THEN value END) AS train_images,
  max(CASE WHEN metric = 'train-images:teacher' THEN value END) AS teacher_images
FROM leaderboard WHERE subject = 'model' AND nfe = 'run'
GROUP BY dataset, method, variant, run, seed, budget"""


def create(connection: Connection) -> None:
    """Create every view; raises what the driver raises where a name is taken."""
    for name, text in texts(connection.dialect.name).items():
        connection.exec_driver_sql(f'CREATE VIEW "{name}" AS {text}')


def drop(connection: Connection) -> None:
    """Drop every view: neither database rebuilds a table that one looks at."""
    for name in reversed(texts(connection.dialect.name)):
        connection.exec_driver_sql(f'DROP VIEW IF EXISTS "{name}"')


def texts(dialect: str) -> dict[str, str]:
    """The queries by name, in an order in which they can be created."""
    words = WORDS[dialect].strip()
    inside = {name: _inside(dialect, path) for name, path in PARTS.items()}
    shown = ", ".join(f"'{number or 'auto'}'" for number in NFES.values())
    means = ",".join(MEAN.format(name=name, nfe=number or "auto") for name, number in NFES.items())
    return {
        "leaderboard": LEADERBOARD.format(words=words, **inside).strip(),
        "method_by_nfe": METHOD_BY_NFE.format(means=means, shown=shown).strip(),
        "failures": FAILURES.format(words=words).strip(),
        "costs": COSTS.strip(),
    }


def _inside(dialect: str, path: str) -> str:
    """How a part of a spec is reached."""
    if dialect == "sqlite":
        return f"json_extract(runs.spec, '$.{path}')"
    return f"(runs.spec #>> '{{{path.replace('.', ',')}}}')"
