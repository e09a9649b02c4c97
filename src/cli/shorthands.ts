/** Words that who comes from podman types, and ours for them. */
export const SHORTHANDS: ReadonlyMap<string, readonly string[]> = new Map([
  ['ps', ['container', 'ls']],
  ['logs', ['container', 'logs']],
  ['wait', ['container', 'wait']],
  ['stop', ['container', 'stop']],
  ['kill', ['container', 'kill']],
  ['rm', ['container', 'rm']],
  ['stats', ['container', 'stats']],
  ['inspect', ['container', 'show']],
  ['container inspect', ['container', 'show']],
  ['container list', ['container', 'ls']],
  ['images', ['image', 'ls']],
  ['rmi', ['image', 'rm']],
  ['image inspect', ['image', 'show']],
  ['image list', ['image', 'ls']],
]);

/** `argv` with a shorthand at its beginning replaced by the command's own words. */
export function withoutShorthand(argv: readonly string[]): readonly string[] {
  for (const length of [2, 1]) {
    const words = SHORTHANDS.get(argv.slice(0, length).join(' '));
    if (words !== undefined) return [...words, ...argv.slice(length)];
  }
  return argv;
}
