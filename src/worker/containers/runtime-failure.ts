/** Why a container's command did not start, with the exit code that podman gives for it. */
export interface StartFailure {
  /** 127: no such file; 126: it can't be executed; 125: everything else. */
  readonly exitCode: 125 | 126 | 127;
  readonly message: string;
}

// What crun and runc say in front of the errno's text when the command itself is at fault. Everything else that
// fails with ENOENT or EACCES (a bind mount's source, say) is not the command's doing.
const EXECUTABLE =
  /executable file|exec[: ]|stat [^:]*: |open executable|exec user process|exec container process/i;
const NOT_FOUND = /executable file .*not found|no such file or directory/i;
const NOT_EXECUTABLE =
  /permission denied|operation not permitted|exec format error|not a directory|is a directory|too many levels of symbolic links|text file busy/i;

/**
 * Reads the runtime's log (JSON, an entry a line) and its standard error for the reason of a failed start.
 * @param runtimeName for the message
 */
export function startFailure(runtimeName: string, log: string, stderr: string): StartFailure {
  const message = lastError(log) ?? lastLine(stderr) ?? 'it gave no reason';
  const text = message.replace(/^.*?OCI runtime error:\s*/i, '');
  const shown = `${runtimeName}: ${text}`;
  if (EXECUTABLE.test(text) && !/mount|rootfs/i.test(text)) {
    if (NOT_FOUND.test(text)) return { exitCode: 127, message: shown };
    if (NOT_EXECUTABLE.test(text)) return { exitCode: 126, message: shown };
  }
  return { exitCode: 125, message: shown };
}

// The container's own first process says this, with exit code 1, when execve(2) fails after the runtime has done its
// part: a script without its interpreter, a program for another processor.
const FAILED_EXEC = /^exec (?:container process )?(?:\([^)]*\) )?[`"']?\/[^\n]*: (?<reason>[A-Za-z ]+)$/;
const FAILED_EXEC_CODE = 1;

/**
 * Whether a container that ended with `exitCode` never ran its command: its only output is the runtime's complaint.
 * @param output all that it wrote to both streams, or as much of it as was kept
 */
export function execFailure(runtimeName: string, exitCode: number, output: string): StartFailure | undefined {
  const line = output.trimEnd();
  if (exitCode !== FAILED_EXEC_CODE || line.includes('\n')) return undefined;
  const message = parse(line)?.msg ?? line;
  if (!FAILED_EXEC.test(message)) return undefined;
  return { exitCode: NOT_FOUND.test(message) ? 127 : 126, message: `${runtimeName}: ${message}` };
}

function lastError(log: string): string | undefined {
  let found: string | undefined;
  for (const line of log.split('\n')) {
    const entry = parse(line);
    if (entry !== undefined && (entry.level === 'error' || entry.level === 'fatal')) found = entry.msg;
  }
  return found;
}

function parse(line: string): { level: string; msg: string } | undefined {
  if (!line.startsWith('{')) return undefined;
  try {
    const value: unknown = JSON.parse(line);
    if (typeof value !== 'object' || value === null) return undefined;
    if (!('level' in value) || !('msg' in value)) return undefined;
    return { level: String(value.level), msg: String(value.msg) };
  } catch {
    return undefined;
  }
}

function lastLine(text: string): string | undefined {
  return text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '')
    .at(-1);
}
