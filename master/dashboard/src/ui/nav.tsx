// The way around: a column beside the page, a bar at the bottom on phones.
import { Link, useLocation } from "wouter-preact";
import { helpShown } from "../state/keys";
import { may, session } from "../state/session";
import { Icon, type IconName } from "./icon";

type Place = { path: string; name: string; icon: IconName; needs: string; others?: string[] };

const PLACES: Place[] = [
  { path: "/fleet", name: "Fleet", icon: "fleet", needs: "agents:read", others: ["/agents"] },
  { path: "/tunnels", name: "Tunnels", icon: "tunnel", needs: "tunnels:read" },
  { path: "/sessions", name: "Sessions", icon: "session", needs: "shells:watch" },
  { path: "/audit", name: "Audit", icon: "audit", needs: "audit:read" },
  { path: "/enrol", name: "Enrol", icon: "enrol", needs: "enrol:read" },
  { path: "/people", name: "People", icon: "people", needs: "operators:read" },
  { path: "/settings", name: "Settings", icon: "settings", needs: "" },
];

export function Nav() {
  const [path] = useLocation();
  const here = (place: Place) => [place.path, ...(place.others ?? [])].some((start) => path === start || path.startsWith(`${start}/`));
  return (
    <nav class="nav" aria-label="Pages">
      <Link href="/fleet" class="brand">
        <img src="/icon.svg" alt="" width="22" height="22" />
        <span>Landline</span>
      </Link>
      <ul>
        {PLACES.filter((place) => !place.needs || may(place.needs)).map((place) => (
          <li key={place.path}>
            <Link href={place.path} aria-current={here(place) ? "page" : undefined}>
              <Icon name={place.icon} />
              <span>{place.name}</span>
            </Link>
          </li>
        ))}
      </ul>
      <div class="foot">
        <button type="button" class="link" onClick={() => (helpShown.value = true)}>
          Keyboard <kbd>?</kbd>
        </button>
        {session.value && <small title={session.value.operator.role}>{session.value.operator.name}</small>}
      </div>
    </nav>
  );
}
