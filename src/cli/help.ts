import { VERSION } from '../config/index.ts';
import type { Command, Options } from './command.ts';
import { SHORTHANDS } from './shorthands.ts';

/** Help of one command: usage, what it does, options, examples. */
export function commandHelp(command: Command): string {
  const title = `imgcred ${command.words.join(' ')}`;
  const lines = [command.summary, '', `Usage: ${[title, command.usage].filter(Boolean).join(' ')}`];
  if (command.description !== undefined) lines.push('', command.description);
  lines.push('', 'Options:', ...optionLines(command.options));
  if (command.examples.length > 0)
    lines.push('', 'Examples:', ...command.examples.map((example) => `  ${example}`));
  return `${lines.join('\n')}\n`;
}

/** Help of the whole program, or of one noun: the commands, a line each. */
export function overviewHelp(commands: readonly Command[], noun?: string): string {
  const shown = commands.filter((command) => noun === undefined || command.words[0] === noun);
  const width = Math.max(...shown.map((command) => command.words.join(' ').length));
  const lines =
    noun === undefined
      ? [
          `imgcred ${VERSION}: runs containers from private registries the moment they are asked for`,
          '',
          'Usage: imgcred COMMAND [OPTIONS]',
        ]
      : [`Usage: imgcred ${noun} COMMAND [OPTIONS]`];
  lines.push('', 'Commands:');
  for (const command of shown) lines.push(`  ${command.words.join(' ').padEnd(width)}  ${command.summary}`);
  if (noun === undefined) {
    const short = [...SHORTHANDS.keys()].filter((words) => !words.includes(' '));
    lines.push(
      '',
      `${short.slice(0, -1).join(', ')} and ${short.at(-1)} mean what they mean in podman.`,
      '',
      'Start:',
      '  REGISTRY_USERNAME=me REGISTRY_PASSWORD=… imgcred image add registry.example.com/app:1 \\',
      '    --creds-env REGISTRY_USERNAME,REGISTRY_PASSWORD',
      '  imgcred run registry.example.com/app:1 -- /bin/hello',
    );
  }
  lines.push('', `'imgcred ${noun === undefined ? 'COMMAND' : `${noun} COMMAND`} --help' tells more.`);
  return `${lines.join('\n')}\n`;
}

function optionLines(options: Options): string[] {
  const rows = Object.entries(options)
    .filter(([, option]) => option.refuse === undefined)
    .map(([name, option]) => {
      const short = option.short === undefined ? '    ' : `-${option.short}, `;
      const value = option.value === undefined ? '' : ` ${option.value}`;
      return [
        `  ${short}--${name}${value}`,
        `${option.help}${option.multiple ? ' (may be repeated)' : ''}`,
      ] as const;
    });
  const width = Math.min(38, Math.max(...rows.map(([left]) => left.length)));
  return rows.map(([left, help]) =>
    left.length > width ? `${left}\n${' '.repeat(width)}  ${help}` : `${left.padEnd(width)}  ${help}`,
  );
}
