/** The real world seen from another folder, with another environment. */
import { createHost, type Host } from "../../lib/host.ts";

/** Made once: it listens to signals. */
const real: Host = createHost();

/** A host in `cwd`; `changes` replaces the rest, the environment for programs included. */
export function hostAt(cwd: string, changes: Partial<Host> = {}): Host {
  const host: Host = {
    ...real,
    cwd,
    findProgram: (name) => Bun.which(name, { PATH: host.env["PATH"] ?? "", cwd }) ?? undefined,
    run: (argv, options = {}) => real.run(argv, { cwd, env: host.env, signal: host.signal, ...options }),
    ...changes,
  };
  return host;
}
