/**
 * `WWW-Authenticate`: which schemes a server accepts, with their parameters.
 *
 * Pure text work (wire.md A2.1, A2.8); what is done with a challenge is in connection.ts and token.ts.
 *
 * https://www.rfc-editor.org/rfc/rfc9110#field.www-authenticate
 */

export interface Challenge {
  /** Lower case: `basic`, `bearer`, `negotiate`. */
  readonly scheme: string;
  /** Names in lower case. */
  readonly parameters: Readonly<Record<string, string>>;
}

const TOKEN = /[!#$%&'*+.^_`|~0-9A-Za-z-]+/y;
const TOKEN68 = /[A-Za-z0-9._~+/-]+=*(?=[ \t]*(?:,|$))/y;
const QUOTED = /"((?:[^"\\]|\\.)*)"?/y;
const BARE = /[^\s,]*/y;

/** Every challenge of one header value; several headers are joined by commas first, as `Headers.get` does. */
export function parseChallenges(header: string): readonly Challenge[] {
  const challenges: { scheme: string; parameters: Record<string, string> }[] = [];
  let at = 0;
  const take = (pattern: RegExp): RegExpExecArray | null => {
    pattern.lastIndex = at;
    const match = pattern.exec(header);
    if (match !== null) at += match[0].length;
    return match;
  };
  while (at < header.length) {
    if (take(/[\s,]+/y) !== null) continue;
    const word = take(TOKEN)?.[0];
    if (word === undefined) {
      at++; // Not a word: skip one character rather than the challenges after it.
      continue;
    }
    const current = challenges.at(-1);
    if (take(/[ \t]*=[ \t]*/y) !== null && current !== undefined) {
      const quoted = take(QUOTED)?.[1];
      const value = quoted === undefined ? (take(BARE)?.[0] ?? "") : quoted.replace(/\\(.)/g, "$1");
      current.parameters[word.toLowerCase()] ??= value;
      continue;
    }
    challenges.push({ scheme: word.toLowerCase(), parameters: Object.create(null) });
    // `Negotiate abc==`: one opaque value instead of parameters.
    if (take(/[ \t]+/y) !== null) take(TOKEN68);
  }
  return challenges.map(({ scheme, parameters }) => ({ scheme, parameters: { ...parameters } }));
}

/** The first challenge that we can answer. */
export function findUsable(challenges: readonly Challenge[]): Challenge | undefined {
  return challenges.find(({ scheme }) => scheme === "basic" || scheme === "bearer");
}
