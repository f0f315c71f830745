/**
 * Hints for messages of `go`: what to type next. Private modules, workspaces, toolchains, the build cache.
 *
 * Go's own words about private modules: https://go.dev/ref/mod#private-modules
 */

export interface HintOptions {
  /** The value of GOPRIVATE. @default it is not set */
  readonly goprivate?: string;
  /** An import path that the message is about, if it names no module. */
  readonly importPath?: string | undefined;
}

/** Hosts on which the owner of a module is the second element of its path. */
const SHARED_HOSTS = new Set(["github.com", "gitlab.com", "bitbucket.org", "codeberg.org", "git.sr.ht", "gitee.com"]);

/** `host.tld/more` */
const MODULE = String.raw`([\w-]+(?:\.[\w-]+)+(?:/[\w.~+!-]+)*)`;

/** Where go names the module that it could not read, the surest first. */
const NAMES_MODULE: readonly RegExp[] = [
  new RegExp(String.raw`(?:^|[\s:])${MODULE}@v?[\w.+-]+(?:/go\.mod)?: `, "m"),
  new RegExp(`reading ${MODULE}/go\\.mod at revision `),
  new RegExp(`unrecognized import path "${MODULE}"`),
  new RegExp(`https://${MODULE} in `),
];

/** Returns the hint for a message of `go list` or `go build`. */
export function hintFor(said: string, options: HintOptions = {}): string | undefined {
  const own = privateHint(said, options);
  if (own !== undefined) return own;
  if (/does not contain modules? listed in go\.work/.test(said)) return "Add the module to go.work: go work use .";
  if (/go\.mod file not found|does not contain main module|cannot find main module/.test(said))
    return "Run ko where the go.mod file is, or make one: go mod init";
  if (said.includes("GOTOOLCHAIN=local")) return "Let go fetch that version: GOTOOLCHAIN=auto";
  if (said.includes("go mod tidy") || said.includes("go.sum")) return "Run: go mod tidy";
  // Without HOME, or with one that cannot be written to.
  if (/build cache is required|failed to initialize build cache/.test(said)) return "export GOCACHE=$(mktemp -d)";
  return undefined;
}

/** The hint at a module that go could not read, because it is private or its content is another. */
export function privateHint(said: string, { goprivate = "", importPath }: HintOptions = {}): string | undefined {
  const module = findModule(said) ?? importPath;
  const isKnown = module !== undefined && isPrivate(module, goprivate);
  const setPrivate = isKnown ? undefined : `export GOPRIVATE=${patternFor(module)}`;
  const host = module?.split("/")[0] ?? "HOST";
  if (said.includes("SECURITY ERROR")) {
    const name = module ?? "the module";
    const moved = `Check why ${name} has another content than before. If its tag was moved on purpose, remove its lines from go.sum and run: go mod tidy`;
    return /checksum server|sum\.golang\.org/.test(said) && setPrivate !== undefined
      ? `${moved}\nIf it is private, let no server check it: ${setPrivate}`
      : moved;
  }
  if (/verifying (?:module|\S+: (?:initializing sumdb|reading http))|checksum database/.test(said)) {
    return setPrivate && `Set GOPRIVATE if the module is private, so that no server checks it: ${setPrivate}`;
  }
  if (/Permission denied \(publickey|Host key verification failed/.test(said)) {
    return `Let ssh log in to ${host}, with a key in the SSH agent and the host in ~/.ssh/known_hosts. This says why it cannot: ssh -T git@${host}`;
  }
  const isGit =
    /could not read (?:Username|Password)|terminal prompts disabled|Authentication failed|[Rr]epository (?:'[^']*' )?not found|no secure protocol found|fatal: unable to access .*error: 40[13]/;
  const isProxy = /reading https?:\/\/\S+: (?:410 Gone|404 Not Found|403 Forbidden|401 Unauthorized)/;
  if (!isGit.test(said) && !isProxy.test(said) && !/unrecognized import path .*: reading https:/.test(said)) {
    return undefined;
  }
  const login = [
    `For https, git reads a login from ~/.netrc: machine ${host} login USER password TOKEN`,
    `For ssh, type: git config --global url."ssh://git@${host}/".insteadOf https://${host}/`,
  ];
  if (setPrivate === undefined) return login.join("\n");
  return [`Set GOPRIVATE if the module is private, so that go asks its host: ${setPrivate}`, ...login].join("\n");
}

function findModule(said: string): string | undefined {
  for (const pattern of NAMES_MODULE) {
    const found = pattern.exec(said)?.[1];
    if (found !== undefined) return found.replace(/\/go\.mod$/, "");
  }
  return undefined;
}

/** The part of a module's path that its private neighbours share. */
function patternFor(module: string | undefined): string {
  if (module === undefined) return "HOST/PATH";
  const [host = "", owner] = module.split("/");
  return SHARED_HOSTS.has(host) && owner !== undefined ? `${host}/${owner}` : host;
}

/** Reports whether GOPRIVATE has a module: a list of patterns, each for a prefix of the path (`path.Match` of Go). */
function isPrivate(module: string, goprivate: string): boolean {
  return goprivate.split(",").some((pattern) => {
    if (pattern === "") return false;
    const length = pattern.split("/").length;
    const prefix = module.split("/").slice(0, length).join("/");
    return new Bun.Glob(pattern).match(prefix);
  });
}
