import { COMMIT, VERSION } from '../../config/index.ts';
import type { Command } from '../command.ts';
import { print, printJson } from '../output.ts';

export const version: Command = {
  words: ['version'],
  summary: 'Print the version',
  examples: ['imgcred version --json'],
  options: { json: { help: 'print JSON' } },
  positionals: [0, 0],
  async run(invocation) {
    const facts = {
      version: VERSION,
      commit: COMMIT,
      bun: Bun.version,
      platform: `${process.platform}/${process.arch}`,
    };
    if (invocation.flag('json')) await printJson(facts);
    else await print(`imgcred ${facts.version} (${facts.commit}, Bun ${facts.bun}, ${facts.platform})\n`);
    return 0;
  },
};
