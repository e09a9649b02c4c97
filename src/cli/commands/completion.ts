import { ImgcredError } from '../../errors/index.ts';
import type { Command, Options } from '../command.ts';
import { print } from '../output.ts';
import { SHORTHANDS } from '../shorthands.ts';

const SHELLS = ['bash', 'zsh', 'fish'] as const;
type Shell = (typeof SHELLS)[number];

/** The command that prints a shell's completion of all commands and options. */
export function completionOf(commands: () => readonly Command[]): Command {
  return {
    words: ['completion'],
    summary: 'Print the completion for a shell',
    usage: 'bash|zsh|fish',
    examples: [
      'source <(imgcred completion bash)',
      'imgcred completion zsh > ~/.zfunc/_imgcred',
      'imgcred completion fish > ~/.config/fish/completions/imgcred.fish',
    ],
    options: {},
    positionals: [1, 1],
    async run(invocation) {
      const shell = SHELLS.find((known) => known === invocation.positionals[0]);
      if (shell === undefined) {
        throw new ImgcredError('USAGE', 'imgcred completion: there is no completion for that shell', {
          hint: `one of ${SHELLS.join(', ')}`,
        });
      }
      await print(completionScript(shell, commands()));
      return 0;
    },
  };
}

/** The script itself. Options that are taken only to be refused are left out. */
export function completionScript(shell: Shell, commands: readonly Command[]): string {
  const all = [...commands, ...shorthandsOf(commands)];
  return shell === 'fish' ? fishScript(all) : bashScript(all, shell);
}

/** podman's words for our commands, completed as these. */
function shorthandsOf(commands: readonly Command[]): Command[] {
  return [...SHORTHANDS].flatMap(([words, ours]) => {
    const command = commands.find((known) => known.words.join(' ') === ours.join(' '));
    return command === undefined ? [] : [{ ...command, words: words.split(' ') }];
  });
}

function shownOptions(options: Options): string[] {
  return Object.entries(options)
    .filter(([, option]) => option.refuse === undefined)
    .map(([name]) => name);
}

function nounsOf(commands: readonly Command[]): string[] {
  return [...new Set(commands.map((command) => command.words[0] ?? ''))];
}

function verbsOf(commands: readonly Command[], noun: string): string[] {
  return commands.flatMap(({ words }) =>
    words[0] === noun && words[1] !== undefined ? [words.slice(1).join(' ')] : [],
  );
}

// Words are looked up from the longest on, so that `audit verify` goes before `audit`.
function bashScript(commands: readonly Command[], shell: 'bash' | 'zsh'): string {
  const options = commands.map(
    (command) =>
      `    '${command.words.join(' ')}') echo '${['help', ...shownOptions(command.options)].map((name) => `--${name}`).join(' ')}' ;;`,
  );
  const verbs = nounsOf(commands)
    .map((noun) => [noun, verbsOf(commands, noun)] as const)
    .filter(([, found]) => found.length > 0)
    .map(([noun, found]) => `    '${noun}') echo '${found.join(' ')}' ;;`);
  return `${shell === 'zsh' ? '#compdef imgcred\nautoload -U +X bashcompinit && bashcompinit\n' : ''}# completion of imgcred
_imgcred_options() {
  case "$1" in
${options.join('\n')}
  esac
}
_imgcred_verbs() {
  case "$1" in
${verbs.join('\n')}
  esac
}
_imgcred() {
  local word="\${COMP_WORDS[COMP_CWORD]}" noun="\${COMP_WORDS[1]}" verb="\${COMP_WORDS[2]}" found
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W '${nounsOf(commands).join(' ')} --help --version' -- "$word"))
    return
  fi
  if [[ "$word" == -* ]]; then
    found="$(_imgcred_options "$noun $verb")"
    [ -n "$found" ] || found="$(_imgcred_options "$noun")"
    COMPREPLY=($(compgen -W "$found" -- "$word"))
    return
  fi
  if [ "$COMP_CWORD" -eq 2 ]; then
    COMPREPLY=($(compgen -W "$(_imgcred_verbs "$noun")" -- "$word"))
    [ "\${#COMPREPLY[@]}" -eq 0 ] || return
  fi
  COMPREPLY=($(compgen -f -- "$word"))
}
complete -o filenames -F _imgcred imgcred
`;
}

function fishScript(commands: readonly Command[]): string {
  const lines = ['# completion of imgcred', 'complete -c imgcred -f'];
  for (const noun of nounsOf(commands)) {
    const alone = commands.find((command) => command.words.length === 1 && command.words[0] === noun);
    const summary = alone?.summary ?? `${verbsOf(commands, noun).join(', ')}`;
    lines.push(`complete -c imgcred -n __fish_use_subcommand -a ${noun} -d ${quoted(summary)}`);
  }
  for (const command of commands) {
    const [noun = '', verb] = command.words;
    const seen = `__fish_seen_subcommand_from ${noun}`;
    if (verb !== undefined) {
      const others = verbsOf(commands, noun).join(' ');
      lines.push(
        `complete -c imgcred -n '${seen}; and not __fish_seen_subcommand_from ${others}' -a ${verb} -d ${quoted(command.summary)}`,
      );
    }
    const here = verb === undefined ? seen : `${seen}; and __fish_seen_subcommand_from ${verb}`;
    for (const name of shownOptions(command.options)) {
      const option = command.options[name];
      const short = option?.short === undefined ? '' : ` -s ${option.short}`;
      const takes = option?.value === undefined ? '' : ' -r -F';
      lines.push(
        `complete -c imgcred -n '${here}' -l ${name}${short}${takes} -d ${quoted(option?.help ?? '')}`,
      );
    }
  }
  return `${lines.join('\n')}\n`;
}

function quoted(text: string): string {
  return `'${text.replace(/['\\]/g, '\\$&')}'`;
}
