export type LogLevel = 'debug' | 'info' | 'warn' | 'error';
export const LOG_LEVELS: readonly LogLevel[] = ['debug', 'info', 'warn', 'error'];

export type LogFields = Readonly<Record<string, unknown>>;

/** Writes events: a constant message and fields, one JSON object a line. */
export interface Logger {
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
  /** The same logger, with these fields on each line. */
  with(fields: LogFields): Logger;
}

export interface LoggerOptions {
  level: LogLevel;
  write: (line: string) => void;
  now?: () => Date;
}

// Names under which a value has no business in a log, whoever put it there: the second net behind `Secret`.
const SECRET_FIELD = /pass(word)?|secret|token|authorization|credential(s)?$|api[-_]?key|private[-_]?key/i;
const HARMLESS_FIELD = /^(secret_(name|id|version)|credential_(secret_)?(name|id|type))$/;

/** Makes a logger. Fields whose names say that they hold a secret are printed as `[redacted]`. */
export function createLogger(options: LoggerOptions, bound: LogFields = {}): Logger {
  const threshold = LOG_LEVELS.indexOf(options.level);
  const now = options.now ?? (() => new Date());
  const emit = (level: LogLevel, message: string, fields: LogFields = {}) => {
    if (LOG_LEVELS.indexOf(level) < threshold) return;
    const line = { time: now().toISOString(), level, message, ...bound, ...fields };
    options.write(`${JSON.stringify(line, redact)}\n`);
  };
  return {
    debug: (message, fields) => emit('debug', message, fields),
    info: (message, fields) => emit('info', message, fields),
    warn: (message, fields) => emit('warn', message, fields),
    error: (message, fields) => emit('error', message, fields),
    with: (fields) => createLogger(options, { ...bound, ...fields }),
  };
}

/** A logger that writes nothing. */
export const silentLogger: Logger = createLogger({ level: 'error', write: () => {} });

function redact(key: string, value: unknown): unknown {
  if (typeof value === 'bigint') return value.toString();
  if (typeof value === 'string' && SECRET_FIELD.test(key) && !HARMLESS_FIELD.test(key)) return '[redacted]';
  return value;
}
