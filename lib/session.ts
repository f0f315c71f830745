/**
 * One run of ko: from the import paths that a command found to published references.
 *
 * Opens what it needs (registry, temporary folder, compressors) when it needs it, and closes all of it at the end.
 */
import { type Base, readBase, showBase } from "./base.ts";
import { buildImages, planBuilds } from "./build.ts";
import { baseFor, type BaseName, type Config, DEFAULT_BASE_IMAGE, parseBase } from "./config.ts";
import { planDestination } from "./destination.ts";
import { KoError, RegistryError } from "./errors.ts";
import { findPrograms, type FoundPrograms, listPrograms, type Program, type ProgramList } from "./goprograms.ts";
import { GzipPool } from "./gzip.ts";
import type { Host } from "./host.ts";
import type { ImageSource } from "./image.ts";
import type { Log } from "./log.ts";
import { nameAll } from "./names.ts";
import type { BuildOptions } from "./options.ts";
import { ALL_PLATFORMS, choosePlatforms, parsePlatform } from "./platform.ts";
import { createPublisher, type Published, writeImageRefs } from "./publish.ts";
import type { Registry } from "./registry.ts";
import { koVersion } from "./version.ts";

export interface SessionOptions {
  readonly host: Host;
  readonly log: Log;
  readonly config: Config;
  /** What the flags ask for, checked. */
  readonly build: BuildOptions;
}

export interface PublishedProgram extends Published {
  readonly program: Program;
}

/** A run that has its settings, checked, and has not built anything yet. */
export interface Session extends AsyncDisposable {
  /** What arguments name: one answer each, for callers that know where each argument stands. */
  find(args: readonly string[]): Promise<FoundPrograms>;
  /** The programs that arguments name. @throws {KoError} As `listPrograms()` of goprograms.ts. */
  list(args: readonly string[]): Promise<ProgramList>;
  /**
   * Builds and publishes programs.
   *
   * @returns one result per program, in their order
   * @throws {KoError} If anything fails. What can be refused is refused before anything is built, and nothing is
   * published unless everything was compiled.
   */
  publish(list: ProgramList): Promise<readonly PublishedProgram[]>;
}

/**
 * Starts a run: settles platforms and destination, and asks for the default base while the caller goes on.
 *
 * @throws {UsageError} If a platform or the destination is not right.
 */
export async function openSession(options: SessionOptions): Promise<Session> {
  const { host, log, config, build } = options;
  const platforms = choosePlatforms(build.platforms, { defaults: config.defaultPlatforms, env: host.env });
  const destination = await planDestination(build, { dockerRepo: config.dockerRepo, cwd: host.cwd });
  const open = new Resources(options, destination.insecureHosts);
  // The default base is what nearly every run needs: ask for it while `go list` works.
  void open.base(config.defaultBaseImage).catch(() => {});
  const [platform] = platforms;
  const listOptions = {
    host,
    log,
    go: config.goPath,
    platform: platform === undefined || platform === ALL_PLATFORMS ? undefined : parsePlatform(platform),
  };
  return {
    find: (args) => findPrograms(args, listOptions),
    list: (args) => listPrograms(args, listOptions),
    publish: async ({ programs, packages }) => {
      const importPaths = programs.map(({ importPath }) => importPath);
      const names = nameAll(destination.repository, importPaths, destination.naming);
      const publisher = createPublisher({
        destination,
        openRegistry: () => open.registry(),
        log,
        signal: host.signal,
        cwd: host.cwd,
      });
      const settings = {
        host,
        log,
        go: config.goPath,
        packages,
        baseOf: (importPath: string) => open.base(baseFor(config, importPath)),
        platforms,
        pool: open.pool,
        folder: await open.folder(),
        labels: build.labels,
        annotations: build.annotations,
        user: build.user,
        disableOptimizations: build.disableOptimizations,
        jobs: build.jobs,
        created: config.sourceDateEpoch,
        kodataCreated: config.koDataDateEpoch,
      };
      const plans = await planBuilds(programs, settings);
      const published = await buildImages(plans, {
        ...settings,
        use: async ({ program }, built): Promise<PublishedProgram> => {
          const name = names.get(program.importPath);
          if (name === undefined) throw new RangeError(`no name for ${program.importPath}`);
          return { program, ...(await publisher.publish(built, name)) };
        },
      });
      if (destination.imageRefs !== undefined) {
        const sorted = published.toSorted((a, b) => (a.program.importPath < b.program.importPath ? -1 : 1));
        await writeImageRefs(destination.imageRefs, sorted);
      }
      return published;
    },
    [Symbol.asyncDispose]: () => open[Symbol.asyncDispose](),
  };
}

/** What a run opens once and closes at its end. */
class Resources implements AsyncDisposable {
  readonly pool: GzipPool;
  readonly #options: SessionOptions;
  readonly #insecureHosts: readonly string[];
  readonly #closing = new AsyncDisposableStack();
  readonly #bases = new Map<string, Promise<Base>>();
  #registry: Promise<Registry> | undefined;
  #folder: Promise<string> | undefined;

  constructor(options: SessionOptions, insecureHosts: readonly string[]) {
    this.#options = options;
    this.#insecureHosts = insecureHosts;
    this.pool = this.#closing.use(new GzipPool({ workers: Math.min(options.host.cpus, 4) }));
  }

  /** The registry client, loaded when the first registry is talked to. */
  registry(): Promise<Registry> {
    this.#registry ??= (async () => {
      const { host, log } = this.#options;
      const [{ Registry }, { createKeychain }, version] = await Promise.all([
        import("./registry.ts"),
        import("./auth.ts"),
        koVersion(host),
      ]);
      const registry = new Registry({
        keychain: createKeychain(host, log),
        log,
        signal: host.signal,
        userAgent: `ko/${version}`,
        insecureHosts: this.#insecureHosts,
        env: host.env,
      });
      return this.#closing.use(registry);
    })();
    return this.#registry;
  }

  /** The run's temporary folder. */
  folder(): Promise<string> {
    this.#folder ??= this.#options.host.tempFolder("ko").then((folder) => this.#closing.use(folder).path);
    return this.#folder;
  }

  /** A base by its text in the configuration; each is read once. */
  base(text: string): Promise<Base> {
    const known = this.#bases.get(text);
    if (known !== undefined) return known;
    const { host } = this.#options;
    const base = (async () => {
      const spec = parseBase(text, host.cwd);
      try {
        return await readBase(await this.#source(spec), { spec, shown: showBase(spec), signal: host.signal });
      } catch (error) {
        const unreachable = error instanceof RegistryError && error.status === undefined;
        if (text !== DEFAULT_BASE_IMAGE || !unreachable) throw error;
        // Nobody chose this base: whoever cannot reach it wants to hear of the one that needs no network.
        throw new KoError(error.message, {
          hint: "Choose a base image that can be reached, or the one ko makes itself: export KO_DEFAULTBASEIMAGE=ko.builtin/static",
        });
      }
    })();
    this.#bases.set(text, base);
    return base;
  }

  async #source(spec: BaseName): Promise<ImageSource> {
    const { host } = this.#options;
    switch (spec.kind) {
      case "registry": {
        const registry = await this.registry();
        const { reference } = spec;
        return {
          getManifest: (name, options) => registry.getManifest(reference, name, options),
          openBlob: (descriptor, signal) => registry.openBlob(reference, descriptor, signal),
          blobSource: { host: reference.host, path: reference.path },
        };
      }
      case "builtin": {
        const { openBuiltin } = await import("./builtin.ts");
        return openBuiltin({ pool: this.pool, folder: await this.folder(), signal: host.signal });
      }
      case "scratch": {
        const { openScratch } = await import("./builtin.ts");
        return openScratch();
      }
      case "layout": {
        const { openLayout } = await import("./layout.ts");
        return openLayout(spec.path);
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // A base that nobody waited for may still be on its way: let it settle, so that nothing outlives the run.
    await Promise.allSettled(this.#bases.values());
    await this.#closing.disposeAsync();
  }
}
