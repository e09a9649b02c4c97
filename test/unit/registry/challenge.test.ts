import { describe, expect, test } from 'bun:test';
import fc from 'fast-check';
import { parseChallenges } from '../../../src/registry/challenge.ts';

const cases: [
  name: string,
  header: string,
  expected: [scheme: string, parameters: Record<string, string>][],
][] = [
  [
    'the usual Bearer challenge',
    'Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull"',
    [
      [
        'bearer',
        { realm: 'https://auth.example/token', service: 'registry.example', scope: 'repository:a/b:pull' },
      ],
    ],
  ],
  ['a Basic challenge', 'Basic realm="Registry Realm"', [['basic', { realm: 'Registry Realm' }]]],
  [
    'two schemes in one header',
    'Newauth realm="apps", type=1, title="Login to \\"apps\\"", Basic realm="simple"',
    [
      ['newauth', { realm: 'apps', type: '1', title: 'Login to "apps"' }],
      ['basic', { realm: 'simple' }],
    ],
  ],
  [
    'commas inside a quoted string',
    'Bearer realm="https://a.example/t",scope="repository:a:pull,push",error="invalid_token"',
    [['bearer', { realm: 'https://a.example/t', scope: 'repository:a:pull,push', error: 'invalid_token' }]],
  ],
  ['any case, odd spaces', 'bEARer   REALM = "x" ,\tService="y"', [['bearer', { realm: 'x', service: 'y' }]]],
  [
    'a missing service and scope',
    'Bearer realm="https://a.example/t"',
    [['bearer', { realm: 'https://a.example/t' }]],
  ],
  [
    'an unquoted realm',
    'Bearer realm=https://a.example/t?x=1,service=y',
    [['bearer', { realm: 'https://a.example/t?x=1', service: 'y' }]],
  ],
  ['empty list elements', ', ,Basic realm="x",, ,', [['basic', { realm: 'x' }]]],
  [
    'a scheme without parameters before another',
    'Negotiate, Basic realm="x"',
    [
      ['negotiate', {}],
      ['basic', { realm: 'x' }],
    ],
  ],
  [
    'an unterminated string',
    'Bearer realm="https://a.example/t',
    [['bearer', { realm: 'https://a.example/t' }]],
  ],
  ['the first of two realms', 'Bearer realm="a",realm="b"', [['bearer', { realm: 'a' }]]],
  ['nothing', '', []],
];

describe('parseChallenges', () => {
  for (const [name, header, expected] of cases) {
    test(`reads ${name}`, () => {
      const read = parseChallenges(header).map(({ scheme, parameters }) => [
        scheme,
        Object.fromEntries(parameters),
      ]);
      expect(read).toEqual(expected);
    });
  }

  test('reads the opaque form', () => {
    const [negotiate, basic] = parseChallenges('Negotiate YIIabc+/==, Basic realm="x"');
    expect(negotiate?.token68).toBe('YIIabc+/==');
    expect(basic?.scheme).toBe('basic');
  });

  test('gives back every parameter that was quoted', () => {
    fc.assert(
      fc.property(fc.string(), fc.string(), (realm, scope) => {
        const quote = (value: string) => `"${value.replace(/["\\]/g, '\\$&')}"`;
        const [challenge] = parseChallenges(`Bearer realm=${quote(realm)}, scope=${quote(scope)}`);
        return challenge?.parameters.get('realm') === realm && challenge.parameters.get('scope') === scope;
      }),
    );
  });

  test('never throws and always ends', () => {
    fc.assert(fc.property(fc.string({ maxLength: 200 }), (header) => Array.isArray(parseChallenges(header))));
  });
});
