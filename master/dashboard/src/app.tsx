// Which page is shown. Somebody who is not signed in sees the login at any address, and then what they asked for.
import type { ComponentChildren } from "preact";
import { useEffect } from "preact/hooks";
import { Redirect, Route, Switch, useLocation } from "wouter-preact";
import { followKeys } from "./state/keys";
import { signIn, whoAmI } from "./state/session";
import { fail } from "./state/toasts";
import { away } from "./state/live";
import { Banner, Help, Toasts } from "./ui/corner";
import { Empty, Skeleton } from "./ui/kit";
import { Nav } from "./ui/nav";
import { StepUp } from "./ui/stepup";
import { AgentPage } from "./pages/agent";
import { AuditPage } from "./pages/audit";
import { EnrolPage } from "./pages/enrol";
import { FleetPage } from "./pages/fleet";
import { LoginPage } from "./pages/login";
import { PeoplePage } from "./pages/people";
import { SessionsPage } from "./pages/sessions";
import { SessionPage } from "./pages/session";
import { SettingsPage } from "./pages/settings";
import { SetupPage } from "./pages/setup";
import { TunnelsPage } from "./pages/tunnels";

const RETRY_MS = 1_500;

export function App() {
  const [path, go] = useLocation();
  useEffect(() => followKeys(go), [go]);
  useEffect(() => {
    if (signIn.value !== "unknown" || path === "/setup") return;
    const look = async () => {
      const answered = await whoAmI().catch((error: unknown) => (fail(error), true));
      away.value = !answered;
      if (!answered) timer = setTimeout(look, RETRY_MS);
    };
    let timer = setTimeout(look, 0);
    return () => clearTimeout(timer);
  }, [path]);
  return (
    <>
      <Banner />
      {path === "/setup" ? <SetupPage /> : signIn.value === "out" ? <LoginPage /> : <Inside />}
      <Toasts />
      <Help />
      <StepUp />
    </>
  );
}

const Inside = () => (
  <div class="frame">
    <Nav />
    <main>
      {signIn.value === "unknown" ? (
        <Skeleton rows={12} />
      ) : (
        <Switch>
          <Route path="/">{() => <Redirect to="/fleet" replace />}</Route>
          <Route path="/login">{() => <Redirect to="/fleet" replace />}</Route>
          <Page path="/fleet" title="Fleet">
            {() => <FleetPage />}
          </Page>
          <Page path="/agents/:id/:tab?" title="Agent">
            {({ id, tab }) => <AgentPage key={id} id={id ?? ""} tab={tab ?? "overview"} />}
          </Page>
          <Page path="/tunnels" title="Tunnels">
            {() => <TunnelsPage />}
          </Page>
          <Page path="/sessions" title="Sessions">
            {() => <SessionsPage />}
          </Page>
          <Page path="/sessions/:id" title="Session">
            {({ id }) => <SessionPage key={id} id={id ?? ""} />}
          </Page>
          <Page path="/audit" title="Audit">
            {() => <AuditPage />}
          </Page>
          <Page path="/enrol" title="Enrol">
            {() => <EnrolPage />}
          </Page>
          <Page path="/people" title="People and tokens">
            {() => <PeoplePage />}
          </Page>
          <Page path="/settings" title="Settings">
            {() => <SettingsPage />}
          </Page>
          <Route>{() => <Empty title="There is no such page">Choose one on the left.</Empty>}</Route>
        </Switch>
      )}
    </main>
  </div>
);

type PageProps = { path: string; title: string; children: (params: Record<string, string | undefined>) => ComponentChildren };

const Page = ({ path, title, children }: PageProps) => (
  <Route path={path}>
    {(params: Record<string, string | undefined>) => (
      <Titled title={params.id ? `${params.id} · ${title}` : title}>{children(params)}</Titled>
    )}
  </Route>
);

function Titled({ title, children }: { title: string; children: ComponentChildren }) {
  useEffect(() => {
    document.title = `${title} · Landline`;
  }, [title]);
  return <>{children}</>;
}
