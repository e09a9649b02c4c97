import type { ExecOptions } from './container-options.ts';
import { ContainerInputError } from './errors.ts';

/** Checks what came over the control socket. @throws ContainerInputError */
export function parseExecOptions(value: unknown): ExecOptions {
  if (typeof value !== 'object' || value === null) throw new ContainerInputError('exec was given no options');
  const fields: Readonly<Record<string, unknown>> = { ...value };
  const { command, env, user, workdir, terminalSize } = fields;
  if (!Array.isArray(command) || !command.every((argument) => typeof argument === 'string')) {
    throw new ContainerInputError('exec was given no command');
  }
  return {
    command,
    env: parseEnv(env),
    user: typeof user === 'string' ? user : undefined,
    workdir: typeof workdir === 'string' ? workdir : undefined,
    terminal: fields.terminal === true,
    interactive: fields.interactive === true,
    terminalSize: parseSize(terminalSize),
  };
}

function parseEnv(value: unknown): Record<string, string> {
  if (typeof value !== 'object' || value === null) return {};
  return Object.fromEntries(Object.entries(value).map(([name, entry]) => [name, String(entry)]));
}

function parseSize(value: unknown): ExecOptions['terminalSize'] {
  if (typeof value !== 'object' || value === null || !('rows' in value) || !('columns' in value))
    return undefined;
  return { rows: Number(value.rows), columns: Number(value.columns) };
}
