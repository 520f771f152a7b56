/* handoff.pml - the handoff between router R, prefill P and decode D, for spin: rules H1 to H8 of docs/handoff.md as far as
 * README.md here says. run.sh runs it; table.md is the state tables of the cores.
 *
 * One grant is one landing slot with room for both frames of a handoff; CREDIT (reuse of a cell inside a grant) is not
 * modelled. The model is acyclic: every timer belongs to an object and fires once, either when nothing else can move (spin's
 * timeout) or early, from the budget EARLY; attempts, faults and resends are bounded. So "always ends" and "nothing leaks"
 * are asserted in the final states (process Env, label final), and no LTL is needed.
 *
 * -DB_xxx takes one guard out again: each must be violated (the mutations of run.sh). */
#ifndef NP
#define NP 2
#endif
#ifndef ND
#define ND 1
#endif
#ifndef NR
#define NR 1
#endif
#define NS 2
#ifndef MAXATT
#define MAXATT 2
#endif
#ifndef MAXTOK
#define MAXTOK 3           /* idx 0 by P, 1..2 by D */
#endif
/* fault budgets */
#ifndef LOSS
#define LOSS 0
#endif
#ifndef DUP
#define DUP 0
#endif
#ifndef CRP
#define CRP 0
#endif
#ifndef CRD
#define CRD 0
#endif
#ifndef DIG
#define DIG 0
#endif
#ifndef FULL
#define FULL 0
#endif
#ifndef CAN
#define CAN 0
#endif
#ifndef EOS
#define EOS 0
#endif
#ifndef EARLY
#define EARLY 0            /* timers that fire before quiescence (false suspicion, short lease) */
#endif
#ifndef DRAIN
#define DRAIN 0
#endif
#ifndef TOTAL
#define TOTAL 99           /* all of the above together */
#endif
#ifndef CAP
#define CAP 10
#endif

/* message types */
#define PREFILL 1
#define RETARGET 2
#define CANCEL 3
#define RESERVE 4
#define TICKET 5
#define FIRST 6
#define PINNED 7
#define REFP 8             /* P refuses: drain, pin gone */
#define SEALED 9
#define MANIFEST 10
#define ABANDON 11
#define QUIESCED 12
#define ACCEPTED 13
#define REFUSED 14         /* c: 1 digest/missing, re-push; 2 final */
#define TOKENS 15
#define FINISHED 16

#define K(r,a) ((r)*4+(a))
#define RQ(k) ((k)/4)
#define AT(k) ((k)%4)
#define G(s,g) ((s)*8+(g))
#define SL(g) ((g)/8)
#define GE(g) ((g)%8)
#define PX(p,r) ((p)*NR+(r))
#define DX(d,s) ((d)*NS+(s))
#define DX2(d,r) ((d)*NR+(r))
#define CX(p,d) ((p)*ND+(d))
#define FX(p,d,s) (((p)*ND+(d))*NS+(s))
#define FB(g,f) (1<<((g)*2+(f)))

/* {type, key, a, b, c} */
chan cRP[NP] = [CAP] of {byte,byte,byte,byte,byte};     /* ZMQ */
chan cRD[ND] = [CAP] of {byte,byte,byte,byte,byte};
chan cPR[NP] = [CAP] of {byte,byte,byte,byte,byte};
chan cDR[ND] = [CAP] of {byte,byte,byte,byte,byte};
chan cDP[NP*ND] = [CAP] of {byte,byte,byte,byte,byte};
chan cPD[NP*ND] = [CAP] of {byte,byte,byte,byte,byte};  /* UCX AM */
chan cDA[NP*ND] = [CAP] of {byte,byte,byte,byte,byte};

/* ---- budgets */
byte bLoss=LOSS, bDup=DUP, bCrP=CRP, bCrD=CRD, bDig=DIG, bFull=FULL, bCan=CAN, bEos=EOS, bEarly=EARLY, bDrain=DRAIN, bTot=TOTAL;
byte nonce;                /* ghost: names each sampling run */
/* ---- R */
byte rst[NR];              /* 0 new 1 running 2 ended */
byte rterm[NR];            /* terminal events sent */
byte ratt[NR], rp[NR], rd[NR], rpi[NR], rdi[NR], rbase[NR], rcom[NR];
bit  racc[NR], rnores[NR];
byte rval[NR*4], rbuf[NR*4];
byte dpar[12], dbas[12];   /* ghost: the D run's parent sample and base */
/* ---- P */
bit  pup[NP], pdrain[NP]; byte pinc[NP];
byte pst[NP*NR], patt[NP*NR], pbase[NP*NR], prun[NP*NR], ptomb[NP*NR];
bit  pfirst[NP*NR], peos[NP*NR], pman[NP*NR], ppin[NP*NR];
byte ptd[NP*NR], ptg[NP*NR], pta[NP*NR];  /* ticket: d+1, slot/gen, attempt */
byte pput[NP*NR], pseal[NP*NR];
short fly[NP*ND*NS];       /* puts in flight: bit (gen,frame) */
byte pgen[NP*ND*NS];       /* highest generation ever accepted for that slot of that D incarnation */
byte pq[NP*ND*NS];         /* Quiesced owed for this gen */
/* ---- D */
bit  dup_[ND]; byte dinc[ND];
byte sst[ND*NS];           /* 0 free 1 granted (pool held) 2 quarantined (pool free) */
byte sk[ND*NS], sgen[ND*NS], sp[ND*NS], spi[ND*NS], sver[ND*NS], srun[ND*NS], sbase[ND*NS], src_[ND*NS];
bit  srep[ND*NS], swait[ND*NS];           /* srep: one re-push used; swait: waits for Quiesced to re-grant */
byte dseen[ND*NR];         /* highest attempt reserved or cancelled */
byte datt[ND*NR], didx[ND*NR], dn[ND*NR], dtok0[ND*NR];  /* decoding */

inline snd(c,t,k,x,y,z) { assert(nfull(c)); c!t,k,x,y,z }
inline fault(b) { b--; bTot-- }

/* ================= R ================= */
inline endreq(r) {                       /* H4: one terminal event */
  rst[r]=2; rterm[r]++; assert(rterm[r]==1);
  rbuf[r*4]=0; rbuf[r*4+1]=0; rbuf[r*4+2]=0; rbuf[r*4+3]=0;
  snd(cRP[rp[r]],CANCEL,K(r,ratt[r]),0,0,0);
  if :: rnores[r] :: else -> snd(cRD[rd[r]],CANCEL,K(r,ratt[r]),0,0,0) fi }

inline choosePD(r,cp,cd) {
  if :: cp=0
#if NP>1
     :: cp=1
#endif
  fi;
  if :: cd=0
#if ND>1
     :: cd=1
#endif
  fi }

inline launch(r,cp,cd) {
  ratt[r]++; racc[r]=0; rbase[r]=rcom[r]; rp[r]=cp; rd[r]=cd; rpi[r]=pinc[cp]; rdi[r]=dinc[cd];
  rnores[r]=(rbase[r]==MAXTOK-1);
#ifdef B_FINLOST
  assert(rbase[r]<MAXTOK);               /* a retry past the end */
#endif
  snd(cRP[cp],PREFILL,K(r,ratt[r]),rbase[r],rpi[r],rnores[r]);
  if :: rnores[r] :: else -> snd(cRD[cd],RESERVE,K(r,ratt[r]),cp*2+rpi[r],rdi[r],rbase[r]) fi }

inline nextatt(r,retarget) {             /* the attempt failed */
#ifndef B_BUFKEEP
  rbuf[r*4]=0; rbuf[r*4+1]=0; rbuf[r*4+2]=0; rbuf[r*4+3]=0;
#endif
  if :: ratt[r]==MAXATT -> endreq(r)     /* failed */
     :: else ->
        choosePD(r,cp,cd);
        if :: retarget && cp==rp[r] && rpi[r]==pinc[cp] && rcom[r]<=rbase[r]+1 && !rnores[r] ->
              snd(cRD[rd[r]],CANCEL,K(r,ratt[r]),0,0,0);
#ifdef B_RETSAME
              racc[r]=0; rd[r]=cd; rdi[r]=dinc[cd];          /* same attempt, other D */
              snd(cRP[cp],RETARGET,K(r,ratt[r]),rbase[r],rpi[r],0);
#else
              ratt[r]++; racc[r]=0; rd[r]=cd; rdi[r]=dinc[cd];
              snd(cRP[cp],RETARGET,K(r,ratt[r]),rbase[r],rpi[r],0);
#endif
              snd(cRD[cd],RESERVE,K(r,ratt[r]),cp*2+rpi[r],rdi[r],rbase[r])
           :: else ->
              snd(cRP[rp[r]],CANCEL,K(r,ratt[r]),0,0,0);
              if :: rnores[r] :: else -> snd(cRD[rd[r]],CANCEL,K(r,ratt[r]),0,0,0) fi;
              launch(r,cp,cd)
        fi
  fi }

/* commit token idx with sample name v (first: sampled by P; else by D run v); H5 */
inline gotTok(r,i,v) {
  if :: i<rcom[r] -> assert(rval[r*4+i]==v || i<rbase[r])         /* (g) a duplicate must agree */
     :: i>=rcom[r] && rbuf[r*4+i]==0 -> rbuf[r*4+i]=v
     :: else -> assert(rbuf[r*4+i]==v)
  fi;
  do :: rcom[r]<MAXTOK && rbuf[r*4+rcom[r]]!=0 ->
        j=rcom[r]; v2=rbuf[r*4+j];
        if :: dpar[v2]!=0 -> assert(j>dbas[v2] && rval[r*4+dbas[v2]]==dpar[v2]);    /* (e,g) continues what was committed */
                          assert(j==dbas[v2]+1 || rval[r*4+j-1]==v2)
           :: else fi;
        rval[r*4+j]=v2; rbuf[r*4+j]=0; rcom[r]++
     :: else -> break od;
  v2=0; j=0 }

#define CUR(k) (rst[RQ(k)]==1 && ratt[RQ(k)]==AT(k))

proctype R() {
  byte t,k,a,b,c,r,cp,cd,j,v2,i;
endR:
  do
  :: atomic { rst[0]==0 -> rst[0]=1; choosePD(0,cp,cd); launch(0,cp,cd); cp=0;cd=0 }
#if NR>1
  :: atomic { rst[1]==0 -> rst[1]=1; choosePD(1,cp,cd); launch(1,cp,cd); cp=0;cd=0 }
#endif
  :: atomic { /* from a P */
      if :: cPR[0]?t,k,a,b,c
#if NP>1
         :: cPR[1]?t,k,a,b,c
#endif
      fi;
      r=RQ(k);
      if :: CUR(k) ->
            if :: t==FIRST -> gotTok(r,a,b);
                  if :: c -> if :: rcom[r]==a+1 -> endreq(r) :: else -> nextatt(r,0) fi
                     :: else fi
               :: t==PINNED
               :: t==REFP -> nextatt(r,0)
            fi
         :: else                                     /* stale fence: dropped and counted */
      fi; t=0;k=0;a=0;b=0;c=0;r=0;cp=0;cd=0 }
  :: atomic { /* from a D */
      if :: cDR[0]?t,k,a,b,c
#if ND>1
         :: cDR[1]?t,k,a,b,c
#endif
      fi;
      r=RQ(k);
      if :: CUR(k) ->
            if :: t==REFUSED -> nextatt(r,1)
               :: t==ACCEPTED -> racc[r]=1
               :: t==TOKENS -> racc[r]=1; gotTok(r,a,b);
#ifndef B_FINLOST
                  if :: rcom[r]==MAXTOK -> endreq(r) :: else fi      /* R knows the end itself */
#endif
               :: t==FINISHED ->
                  if :: rcom[r]==MAXTOK -> endreq(r)
                     :: else
#ifndef B_FINGAP
                        -> nextatt(r,0)                              /* a gap that nobody will fill */
#endif
                  fi
            fi
         :: else
      fi; t=0;k=0;a=0;b=0;c=0;r=0;cp=0;cd=0 }
  /* deaths, told by heartbeats */
  :: atomic { rst[0]==1 && rpi[0]!=pinc[rp[0]] && !racc[0] -> nextatt(0,0); cp=0;cd=0 }
  :: atomic { rst[0]==1 && rdi[0]!=dinc[rd[0]] && !rnores[0] -> nextatt(0,1); cp=0;cd=0 }
#if NR>1
  :: atomic { rst[1]==1 && rpi[1]!=pinc[rp[1]] && !racc[1] -> nextatt(1,0); cp=0;cd=0 }
  :: atomic { rst[1]==1 && rdi[1]!=dinc[rd[1]] && !rnores[1] -> nextatt(1,1); cp=0;cd=0 }
#endif
  /* progress timer: early (budget) or at quiescence */
#ifndef B_NOTIMER
  :: atomic { bEarly>0 && bTot>0 && rst[0]==1 -> fault(bEarly); nextatt(0,1); cp=0;cd=0 }
  :: atomic { timeout && rst[0]==1 -> nextatt(0,1); cp=0;cd=0 }
#if NR>1
  :: atomic { bEarly>0 && bTot>0 && rst[1]==1 -> fault(bEarly); nextatt(1,1); cp=0;cd=0 }
  :: atomic { timeout && rst[1]==1 -> nextatt(1,1); cp=0;cd=0 }
#endif
#endif
  /* the client cancels */
  :: atomic { bCan>0 && bTot>0 && rst[0]==1 -> fault(bCan); endreq(0) }
#if NR>1
  :: atomic { bCan>0 && bTot>0 && rst[1]==1 -> fault(bCan); endreq(1) }
#endif
  od }

/* ================= P ================= */
#define TKT(x) (ptd[x]!=0 && pta[x]==patt[x])
inline dropT(x) { ptd[x]=0; ptg[x]=0; pta[x]=0; pput[x]=0; pseal[x]=0; pman[x]=0 }
inline freeP(x) { pst[x]=0; prun[x]=0; pfirst[x]=0; peos[x]=0; ppin[x]=0; pbase[x]=0 }
inline owe(p,d,g,k) {                    /* Quiesced(fence) as soon as none of its puts is in flight */
  if :: (fly[FX(p,d,SL(g))] & (FB(GE(g),0)|FB(GE(g),1)))==0 -> snd(cPD[CX(p,d)],QUIESCED,k,g,0,0)
     :: else -> pq[FX(p,d,SL(g))]=GE(g)  fi }

#ifdef B_DUPT
#define OLDG(p,d,a) false
#else
#define OLDG(p,d,a) (GE(a)<=pgen[FX(p,d,SL(a))])   /* a generation is accepted once */
#endif
#ifdef B_OLDD
#define OLDD(d,b) false
#else
#define OLDD(d,b) ((b)/2!=dinc[d])                 /* the endpoint belongs to one incarnation of D */
#endif
#define OLDT(p,d,a,b) (OLDG(p,d,a) || OLDD(d,b))
inline fromD(p,d) {
  r=RQ(k); x=PX(p,r);
  if
  :: t==TICKET ->                        /* a: slot/gen, b: D's inc*2 + P's inc */
     if
#ifndef B_PINC
     :: (b%2)!=pinc[p]%2 -> skip         /* meant for my dead predecessor */
#endif
     :: (AT(k)<=ptomb[x] || AT(k)<patt[x] || (AT(k)==patt[x] && pst[x]==0)
         ) && (b%2)==pinc[p]%2
        -> skip                          /* ended or superseded: D's lease and Cancel clean up */
     :: else ->
        if :: (ptd[x]!=0 && pta[x]>AT(k)) || OLDT(p,d,a,b) -> skip
           :: else -> dropT(x); pgen[FX(p,d,SL(a))]=GE(a); ptd[x]=d+1; ptg[x]=a; pta[x]=AT(k) fi
     fi
  :: t==CANCEL ->                        /* from D, same socket as Ticket */
     if :: ptd[x]==d+1 && ptg[x]==a && pta[x]==AT(k) -> dropT(x) :: else fi;
     if :: GE(a)>pgen[FX(p,d,SL(a))] -> pgen[FX(p,d,SL(a))]=GE(a) :: else fi;
     owe(p,d,a,k)
  :: t==ACCEPTED ->
     if :: pst[x]==2 && TKT(x) && ptd[x]==d+1 && ptg[x]==a -> freeP(x); dropT(x) :: else fi
  :: t==REFUSED ->                       /* c==1: digest, stop, quiesce, wait for the new Ticket */
     if :: ptd[x]==d+1 && ptg[x]==a && pta[x]==AT(k) -> dropT(x) :: else fi;
     owe(p,d,a,k)
  fi }

/* local steps of request r at P; x is spelled out so that every option is guarded */
#define PLOC(p,r) \
  :: atomic { pup[p] && (pst[PX(p,r)]==1) -> pst[PX(p,r)]=2 } \
  :: atomic { pup[p] && (pst[PX(p,r)]==2 && ptd[PX(p,r)]==0 && !ppin[PX(p,r)] && !peos[PX(p,r)]) -> ppin[PX(p,r)]=1; snd(cPR[p],PINNED,K(r,patt[PX(p,r)]),0,0,0) } \
  :: atomic { pup[p] && (pst[PX(p,r)]==2 && !pfirst[PX(p,r)] && (TKT(PX(p,r)) || peos[PX(p,r)])) ->                pfirst[PX(p,r)]=1; snd(cPR[p],FIRST,K(r,patt[PX(p,r)]),pbase[PX(p,r)],prun[PX(p,r)],peos[PX(p,r)]) } \
  :: atomic { pup[p] && (pst[PX(p,r)]==2 && pfirst[PX(p,r)] && peos[PX(p,r)] && !TKT(PX(p,r))) -> freeP(PX(p,r)) } \
  :: atomic { pup[p] && (pst[PX(p,r)]==2 && pfirst[PX(p,r)] && peos[PX(p,r)] && TKT(PX(p,r)) && (fly[FX(p,ptd[PX(p,r)]-1,SL(ptg[PX(p,r)]))] & (FB(GE(ptg[PX(p,r)]),0)|FB(GE(ptg[PX(p,r)]),1)))==0) -> snd(cPD[CX(p,ptd[PX(p,r)]-1)],ABANDON,K(r,patt[PX(p,r)]),ptg[PX(p,r)],0,0); freeP(PX(p,r)); dropT(PX(p,r)) } \
  :: atomic { pup[p] && (pst[PX(p,r)]>=1 && TKT(PX(p,r)) && (pput[PX(p,r)]&1)==0 && !(pfirst[PX(p,r)]&&peos[PX(p,r)])) -> pput[PX(p,r)]=pput[PX(p,r)]|1; fly[FX(p,ptd[PX(p,r)]-1,SL(ptg[PX(p,r)]))]=fly[FX(p,ptd[PX(p,r)]-1,SL(ptg[PX(p,r)]))]|FB(GE(ptg[PX(p,r)]),0) } \
  :: atomic { pup[p] && (pst[PX(p,r)]==2 && TKT(PX(p,r)) && (pput[PX(p,r)]&2)==0 && !peos[PX(p,r)]) -> pput[PX(p,r)]=pput[PX(p,r)]|2; fly[FX(p,ptd[PX(p,r)]-1,SL(ptg[PX(p,r)]))]=fly[FX(p,ptd[PX(p,r)]-1,SL(ptg[PX(p,r)]))]|FB(GE(ptg[PX(p,r)]),1) } \
  :: atomic { pup[p] && (TKT(PX(p,r)) && (pput[PX(p,r)]&1) && (pseal[PX(p,r)]&1)==0 && (fly[FX(p,ptd[PX(p,r)]-1,SL(ptg[PX(p,r)]))]&FB(GE(ptg[PX(p,r)]),0))==0) -> pseal[PX(p,r)]=pseal[PX(p,r)]|1; snd(cPD[CX(p,ptd[PX(p,r)]-1)],SEALED,K(r,patt[PX(p,r)]),ptg[PX(p,r)],1,prun[PX(p,r)]) } \
  :: atomic { pup[p] && (TKT(PX(p,r)) && (pput[PX(p,r)]&2) && (pseal[PX(p,r)]&2)==0 && (fly[FX(p,ptd[PX(p,r)]-1,SL(ptg[PX(p,r)]))]&FB(GE(ptg[PX(p,r)]),1))==0) -> pseal[PX(p,r)]=pseal[PX(p,r)]|2; snd(cPD[CX(p,ptd[PX(p,r)]-1)],SEALED,K(r,patt[PX(p,r)]),ptg[PX(p,r)],2,prun[PX(p,r)]) } \
  :: atomic { pup[p] && (TKT(PX(p,r)) && pst[PX(p,r)]==2 && pfirst[PX(p,r)] && pseal[PX(p,r)]==3 && !pman[PX(p,r)]) -> pman[PX(p,r)]=1; snd(cPD[CX(p,ptd[PX(p,r)]-1)],MANIFEST,K(r,patt[PX(p,r)]),ptg[PX(p,r)],pbase[PX(p,r)],prun[PX(p,r)]) } \
  :: atomic { pup[p] && (ptd[PX(p,r)]!=0 && !dup_[ptd[PX(p,r)]-1]) -> dropT(PX(p,r)) } \
  :: atomic { pup[p] && (bEarly>0 && bTot>0 && pst[PX(p,r)]==2) -> fault(bEarly); freeP(PX(p,r)); dropT(PX(p,r)) } \
  :: atomic { pup[p] && (timeout && pst[PX(p,r)]==2) -> freeP(PX(p,r)); dropT(PX(p,r)) } \
  :: atomic { pup[p] && (timeout && pst[PX(p,r)]==0 && ptd[PX(p,r)]!=0) -> dropT(PX(p,r)) } \

#define POWE(p,d,i) \
  :: atomic { pup[p] && pq[FX(p,d,i)]!=0 && (fly[FX(p,d,i)] & (FB(pq[FX(p,d,i)],0)|FB(pq[FX(p,d,i)],1)))==0 -> \
      snd(cPD[CX(p,d)],QUIESCED,0,G(i,pq[FX(p,d,i)]),0,0); pq[FX(p,d,i)]=0 }

proctype P(byte p) {
  byte t,k,a,b,c,r,x,i,d;
endP:
  do
  :: atomic { pup[p] && nempty(cRP[p]) -> cRP[p]?t,k,a,b,c;
      r=RQ(k); x=PX(p,r);
      if
      :: t==PREFILL ->                   /* a base, b P's inc, c no Reserve */
         if
#ifndef B_PINC
         :: b!=pinc[p] -> skip
#endif
         :: pdrain[p] -> snd(cPR[p],REFP,k,0,0,0)
         :: (!pdrain[p]) &&
#ifndef B_PINC
            b==pinc[p] &&
#endif
            (AT(k)<=ptomb[x] || AT(k)<=patt[x]) -> skip
         :: else ->
            freeP(x); if :: ptd[x]!=0 && pta[x]<AT(k) -> dropT(x) :: else fi;
            pst[x]=1; patt[x]=AT(k); pbase[x]=a; nonce++; prun[x]=nonce; peos[x]=c;
            if :: bEos>0 && bTot>0 -> fault(bEos); peos[x]=1 :: true fi
         fi
      :: t==RETARGET ->
#ifdef B_RETSAME
         if :: pst[x]!=0 && patt[x]==AT(k) && AT(k)>ptomb[x] -> skip
#else
         if :: b==pinc[p] && pst[x]!=0 && patt[x]==AT(k)-1 && AT(k)>ptomb[x] ->
               patt[x]=AT(k); pfirst[x]=0; ppin[x]=0;
               if :: ptd[x]!=0 && pta[x]<AT(k) -> dropT(x) :: else fi
#endif
            :: else -> snd(cPR[p],REFP,k,0,0,0);
               if :: AT(k)>ptomb[x] -> ptomb[x]=AT(k) :: else fi;
               if :: ptd[x]!=0 && pta[x]<=AT(k) -> dropT(x) :: else fi
         fi
      :: t==CANCEL ->
         if :: AT(k)>ptomb[x] -> ptomb[x]=AT(k) :: else fi;
         if :: patt[x]<=AT(k) -> freeP(x) :: else fi;
         if :: ptd[x]!=0 && pta[x]<=AT(k) ->
#ifdef B_QR
               snd(cPD[CX(p,ptd[x]-1)],QUIESCED,k,ptg[x],0,0);   /* says so at once */
#endif
               dropT(x)
            :: else fi
      fi; t=0;k=0;a=0;b=0;c=0;r=0;x=0 }
  :: atomic { pup[p] && nempty(cDP[CX(p,0)]) -> cDP[CX(p,0)]?t,k,a,b,c; fromD(p,0); t=0;k=0;a=0;b=0;c=0;r=0;x=0 }
  :: atomic { pup[p] && nempty(cDA[CX(p,0)]) -> cDA[CX(p,0)]?t,k,a,b,c; fromD(p,0); t=0;k=0;a=0;b=0;c=0;r=0;x=0 }
#if ND>1
  :: atomic { pup[p] && nempty(cDP[CX(p,1)]) -> cDP[CX(p,1)]?t,k,a,b,c; fromD(p,1); t=0;k=0;a=0;b=0;c=0;r=0;x=0 }
  :: atomic { pup[p] && nempty(cDA[CX(p,1)]) -> cDA[CX(p,1)]?t,k,a,b,c; fromD(p,1); t=0;k=0;a=0;b=0;c=0;r=0;x=0 }
#endif
  PLOC(p,0)
#if NR>1
  PLOC(p,1)
#endif
  POWE(p,0,0) POWE(p,0,1)
#if ND>1
  POWE(p,1,0) POWE(p,1,1)
#endif
  /* drain */
  :: atomic { bDrain>0 && bTot>0 && pup[p] && !pdrain[p] -> fault(bDrain); pdrain[p]=1 }
  od }

/* ================= D ================= */
inline clrS(y) { sst[y]=0; sk[y]=0; sp[y]=0; spi[y]=0; sver[y]=0; srun[y]=0; sbase[y]=0; srep[y]=0; swait[y]=0; src_[y]=0 }
inline quar(d,y,s) {                     /* end a grant: pool freed, slot quarantined, Cancel behind the Ticket */
  sst[y]=2; sver[y]=0; srun[y]=0; srep[y]=0; swait[y]=0;
  snd(cDP[CX(sp[y],d)],CANCEL,sk[y],G(s,sgen[y]),0,0) }
inline grant(d,s,k) {
  y=DX(d,s); clrS(y); sgen[y]++; assert(sgen[y]<=5); sst[y]=1; sk[y]=k; sp[y]=a/2; spi[y]=a%2; sbase[y]=c;
  snd(cDP[CX(sp[y],d)],TICKET,k,G(s,sgen[y]),dinc[d]*2+spi[y],0) }
inline sup(d,s,r,at) {                   /* everything of this request up to attempt at ends here */
  y=DX(d,s);
  if :: sst[y]==1 && RQ(sk[y])==r && AT(sk[y])<=at -> quar(d,y,s) :: else fi }

inline bad(d,y,s) {                      /* digest failed or a frame is missing */
  if :: !srep[y] -> srep[y]=1; sver[y]=0;
#ifdef B_REPUSH
        snd(cDA[CX(sp[y],d)],REFUSED,sk[y],G(s,sgen[y]),0,1);
        sgen[y]++; snd(cDP[CX(sp[y],d)],TICKET,sk[y],G(s,sgen[y]),dinc[d]*2+spi[y],0)
#else
        swait[y]=1; snd(cDA[CX(sp[y],d)],REFUSED,sk[y],G(s,sgen[y]),0,1)
#endif
     :: else -> snd(cDR[d],REFUSED,sk[y],0,0,2); quar(d,y,s)
  fi }

inline fromP(p,d) {
  s=SL(a); y=DX(d,s); r=RQ(k);
  if
  :: sst[y]==0 || sgen[y]!=GE(a) || sp[y]!=p -> skip                     /* not current: refused and counted */
  :: else ->
     if
     :: t==SEALED && sst[y]==1 && !swait[y] ->
        if :: (sver[y]==0 || srun[y]==c || true) ->
              assert(sver[y]==0 || srun[y]==c);                          /* H2: one run only */
              srun[y]=c; sver[y]=sver[y]|b
           :: bDig>0 && bTot>0 -> fault(bDig); bad(d,y,s)
        fi
     :: t==MANIFEST && sst[y]==1 && !swait[y] ->
        if :: sver[y]==3 ->
              assert(srun[y]==c && b==sbase[y] && k==sk[y]);             /* H2 */
              nonce++; dpar[nonce]=c; dbas[nonce]=b;
              datt[DX2(d,r)]=AT(k); didx[DX2(d,r)]=b; dn[DX2(d,r)]=nonce; dtok0[DX2(d,r)]=c;
              snd(cDA[CX(p,d)],ACCEPTED,k,a,0,0); snd(cDR[d],ACCEPTED,k,0,0,0);
#ifdef B_MANQ
              sst[y]=2; src_[y]=9
#else
              clrS(y)                                                    /* Manifest proves quiescence */
#endif
           :: else -> bad(d,y,s)
        fi
     :: t==ABANDON -> clrS(y)                                            /* proves quiescence too */
     :: t==QUIESCED ->
        if :: sst[y]==2 -> clrS(y)
           :: sst[y]==1 && swait[y] -> swait[y]=0; sgen[y]++; assert(sgen[y]<=5);
              snd(cDP[CX(p,d)],TICKET,sk[y],G(s,sgen[y]),dinc[d]*2+spi[y],0)
           :: else -> skip
        fi
     :: else -> skip
     fi
  fi }

/* decode of request r; slot s: lease, P's death, repeated Cancel */
#ifdef B_NOTOK0
#define TOK0(d,r) skip
#else
#define TOK0(d,r) snd(cDR[d],TOKENS,K(r,datt[DX2(d,r)]),didx[DX2(d,r)],dtok0[DX2(d,r)],0)
#endif
#define DDEC(d,r) \
  :: atomic { dup_[d] && datt[DX2(d,r)]!=0 && didx[DX2(d,r)]==MAXTOK -> \
      snd(cDR[d],FINISHED,K(r,datt[DX2(d,r)]),0,0,0); datt[DX2(d,r)]=0; didx[DX2(d,r)]=0; dn[DX2(d,r)]=0; dtok0[DX2(d,r)]=0 } \
  :: atomic { dup_[d] && datt[DX2(d,r)]!=0 && didx[DX2(d,r)]<MAXTOK && didx[DX2(d,r)]==dbas[dn[DX2(d,r)]] -> \
      TOK0(d,r); didx[DX2(d,r)]++ } \
  :: atomic { dup_[d] && datt[DX2(d,r)]!=0 && didx[DX2(d,r)]<MAXTOK && didx[DX2(d,r)]!=dbas[dn[DX2(d,r)]] -> \
      snd(cDR[d],TOKENS,K(r,datt[DX2(d,r)]),didx[DX2(d,r)],dn[DX2(d,r)],0); didx[DX2(d,r)]++ }
#define DSLOT(d,s) \
  :: atomic { dup_[d] && sst[DX(d,s)]!=0 && spi[DX(d,s)]!=pinc[sp[DX(d,s)]] -> \
      if :: sst[DX(d,s)]==1 -> snd(cDR[d],REFUSED,sk[DX(d,s)],0,0,2) :: else fi; clrS(DX(d,s)) } \
  :: atomic { dup_[d] && bEarly>0 && bTot>0 && sst[DX(d,s)]==1 -> fault(bEarly); snd(cDR[d],REFUSED,sk[DX(d,s)],0,0,2); quar(d,DX(d,s),s) } \
  :: atomic { timeout && dup_[d] && sst[DX(d,s)]==1 -> snd(cDR[d],REFUSED,sk[DX(d,s)],0,0,2); quar(d,DX(d,s),s) } \
  :: atomic { timeout && dup_[d] && sst[DX(d,s)]==2 && src_[DX(d,s)]<2 -> src_[DX(d,s)]++; \
      snd(cDP[CX(sp[DX(d,s)],d)],CANCEL,sk[DX(d,s)],G(s,sgen[DX(d,s)]),0,0) }

#ifdef B_DINC
#define MYINC(b,d) true
#else
#define MYINC(b,d) (b==dinc[d])
#endif
proctype D(byte d) {
  byte t,k,a,b,c,r,s,y,z;
endD:
  do
  :: atomic { dup_[d] && nempty(cRD[d]) -> cRD[d]?t,k,a,b,c;
      r=RQ(k); z=DX2(d,r);
      if
      :: t==RESERVE ->                   /* a: P and its inc; b: my inc; c: base */
         if
#ifndef B_DINC
         :: b!=dinc[d] -> skip
#endif
         :: AT(k)<=dseen[z] && MYINC(b,d) -> skip
         :: AT(k)>dseen[z] && MYINC(b,d) ->
            dseen[z]=AT(k);
#ifdef B_REGRANT
            if :: sst[DX(d,0)]==1 && RQ(sk[DX(d,0)])==r -> grant(d,0,k); goto granted
               :: sst[DX(d,1)]==1 && RQ(sk[DX(d,1)])==r -> grant(d,1,k); goto granted
               :: else fi;
#endif
            sup(d,0,r,AT(k)-1); sup(d,1,r,AT(k)-1);
            if :: datt[z]!=0 -> datt[z]=0; didx[z]=0; dn[z]=0; dtok0[z]=0 :: else fi;
            if :: sst[DX(d,0)]==0 -> grant(d,0,k)
               :: sst[DX(d,0)]!=0 && sst[DX(d,1)]==0 -> grant(d,1,k)
               :: sst[DX(d,0)]!=0 && sst[DX(d,1)]!=0 -> snd(cDR[d],REFUSED,k,0,0,2)
               :: bFull>0 && bTot>0 -> fault(bFull); snd(cDR[d],REFUSED,k,0,0,2)
            fi;
granted:    skip
         fi
      :: t==CANCEL ->
         if :: AT(k)>dseen[z] -> dseen[z]=AT(k) :: else fi;
         sup(d,0,r,AT(k)); sup(d,1,r,AT(k));
         if :: datt[z]!=0 && datt[z]<=AT(k) -> datt[z]=0; didx[z]=0; dn[z]=0; dtok0[z]=0 :: else fi
      fi; t=0;k=0;a=0;b=0;c=0;r=0;s=0;y=0;z=0 }
  :: atomic { dup_[d] && nempty(cPD[CX(0,d)]) -> cPD[CX(0,d)]?t,k,a,b,c; fromP(0,d); t=0;k=0;a=0;b=0;c=0;r=0;s=0;y=0;z=0 }
#if NP>1
  :: atomic { dup_[d] && nempty(cPD[CX(1,d)]) -> cPD[CX(1,d)]?t,k,a,b,c; fromP(1,d); t=0;k=0;a=0;b=0;c=0;r=0;s=0;y=0;z=0 }
#endif
  DDEC(d,0)
#if NR>1
  DDEC(d,1)
#endif
  DSLOT(d,0) DSLOT(d,1)
  od }

/* ================= network, faults, final check ================= */
inline flush(c) { do :: c?_,_,_,_,_ :: empty(c) -> break od }
inline mayflush(c) { if :: flush(c) :: nempty(c) -> skip fi }
inline lose(c) { nempty(c) -> c?_,_,_,_,_ }
inline dupm(c) { nempty(c) && nfull(c) -> c?<t,k,a,b,x>; c!t,k,a,b,x; t=0;k=0;a=0;b=0;x=0 }   /* head again, at the tail */

inline crashP(p) {
  fault(bCrP); pup[p]=0; pinc[p]++; pdrain[p]=0;
  r=0; do :: r<NR -> x=PX(p,r); freeP(x); dropT(x); patt[x]=0; ptomb[x]=0; r++ :: else -> break od;
  d=0; do :: d<ND -> pgen[FX(p,d,0)]=0; pgen[FX(p,d,1)]=0; fly[FX(p,d,0)]=0; fly[FX(p,d,1)]=0; pq[FX(p,d,0)]=0; pq[FX(p,d,1)]=0;
              flush(cDA[CX(p,d)]); mayflush(cPD[CX(p,d)]); mayflush(cDP[CX(p,d)]); d++ :: else -> break od;
  mayflush(cRP[p]); r=0; d=0; x=0 }
inline crashD(q) {
  fault(bCrD); dup_[q]=0; dinc[q]++;
  r=0; do :: r<NR -> datt[DX2(q,r)]=0; didx[DX2(q,r)]=0; dn[DX2(q,r)]=0; dtok0[DX2(q,r)]=0; dseen[DX2(q,r)]=0; r++ :: else -> break od;
  clrS(DX(q,0)); clrS(DX(q,1)); sgen[DX(q,0)]=0; sgen[DX(q,1)]=0;
  d=0; do :: d<NP -> pgen[FX(d,q,0)]=0; pgen[FX(d,q,1)]=0; fly[FX(d,q,0)]=0; fly[FX(d,q,1)]=0; pq[FX(d,q,0)]=0; pq[FX(d,q,1)]=0;
              r=0; do :: r<NR -> if :: ptd[PX(d,r)]==q+1 -> dropT(PX(d,r)) :: else fi; r++ :: else -> break od;
              flush(cPD[CX(d,q)]); flush(cDA[CX(d,q)]); mayflush(cDP[CX(d,q)]); d++ :: else -> break od;
  mayflush(cRD[q]); r=0; d=0 }

/* no timer is pending any more */
#define SQ(y) (sst[y]==0 || (sst[y]==2 && src_[y]>=2))
#define PI(x) (pst[x]!=2 && (pst[x]!=0 || ptd[x]==0))
#ifdef B_NOTIMER
#define RE(r) (true)
#else
#define RE(r) (rst[r]==2)
#endif
#if NP*NR==1
#define PALL PI(0)
#elif NP*NR==2
#define PALL (PI(0)&&PI(1))
#else
#define PALL (PI(0)&&PI(1)&&PI(2)&&PI(3))
#endif
#if ND==1
#define SALL (SQ(0)&&SQ(1))
#else
#define SALL (SQ(0)&&SQ(1)&&SQ(2)&&SQ(3))
#endif
#if NR==1
#define ENDED (RE(0) && PALL && SALL)
#else
#define ENDED (RE(0) && RE(1) && PALL && SALL)
#endif

#define H1OK(p,d,s,g) (sst[DX(d,s)]==2 || (sst[DX(d,s)]==1 && sgen[DX(d,s)]==g && sp[DX(d,s)]==p && spi[DX(d,s)]==pinc[p]))
#define LAND1(p,d,s,g,f) \
  :: atomic { (fly[FX(p,d,s)] & FB(g,f))!=0 -> fly[FX(p,d,s)] = fly[FX(p,d,s)] & (~FB(g,f)); assert(H1OK(p,d,s,g)) }
#define LAND(p,d,s) LAND1(p,d,s,1,0) LAND1(p,d,s,1,1) LAND1(p,d,s,2,0) LAND1(p,d,s,2,1) LAND1(p,d,s,3,0) LAND1(p,d,s,3,1) LAND1(p,d,s,4,0) LAND1(p,d,s,4,1) LAND1(p,d,s,5,0) LAND1(p,d,s,5,1)

proctype Env() {
  byte t,k,a,b,x,r,d,p,s,g,f,y;
  do
  /* a put lands: in any order, at any time; H1 */
  LAND(0,0,0) LAND(0,0,1)
#if NP>1
  LAND(1,0,0) LAND(1,0,1)
#endif
#if ND>1
  LAND(0,1,0) LAND(0,1,1)
#if NP>1
  LAND(1,1,0) LAND(1,1,1)
#endif
#endif
  /* faults */
  :: atomic { bCrP>0 && bTot>0 && pup[0] -> crashP(0) }
  :: atomic { !pup[0] -> pup[0]=1 }
#if NP>1
  :: atomic { bCrP>0 && bTot>0 && pup[1] -> crashP(1) }
  :: atomic { !pup[1] -> pup[1]=1 }
#endif
  :: atomic { bCrD>0 && bTot>0 && dup_[0] -> crashD(0) }
  :: atomic { !dup_[0] -> dup_[0]=1 }
#if ND>1
  :: atomic { bCrD>0 && bTot>0 && dup_[1] -> crashD(1) }
  :: atomic { !dup_[1] -> dup_[1]=1 }
#endif
#if LOSS>0
  :: atomic { bLoss>0 && bTot>0 ->
      if :: lose(cRP[0]) :: lose(cRD[0]) :: lose(cPR[0]) :: lose(cDR[0]) :: lose(cDP[0]) :: lose(cPD[0]) :: lose(cDA[0])
#if NP>1
         :: lose(cRP[1]) :: lose(cPR[1]) :: lose(cDP[ND]) :: lose(cPD[ND]) :: lose(cDA[ND])
#endif
         :: else -> skip
      fi; fault(bLoss) }
#endif
#if DUP>0
  :: atomic { bDup>0 && bTot>0 ->
      if :: dupm(cRP[0]) :: dupm(cRD[0]) :: dupm(cPR[0]) :: dupm(cDR[0]) :: dupm(cDP[0]) :: dupm(cPD[0]) :: dupm(cDA[0])
#if NP>1
         :: dupm(cRP[1]) :: dupm(cPR[1]) :: dupm(cDP[ND]) :: dupm(cPD[ND]) :: dupm(cDA[ND])
#endif
         :: else -> skip
      fi; fault(bDup) }
#endif
  :: atomic { timeout && ENDED ->
final: /* nothing can move and every timer has fired: (c) liveness, (d) leaks, (f) deadlock */
      r=0; do :: r<NR -> assert(rst[r]==2 && rterm[r]==1); r++ :: else -> break od;
#ifdef NOFAULT
      r=0; do :: r<NR -> assert(rcom[r]==MAXTOK && ratt[r]==1); r++ :: else -> break od;
#endif
      x=0; do :: x<NP*NR -> assert(pst[x]==0 && ptd[x]==0); x++ :: else -> break od;
      y=0; do :: y<ND*NS -> assert(sst[y]==0); y++ :: else -> break od;
      x=0; do :: x<ND*NR -> assert(datt[x]==0); x++ :: else -> break od;
      x=0; do :: x<NP*ND*NS -> assert(fly[x]==0 && pq[x]==0); x++ :: else -> break od;
      break }
  od;
end: skip }

init { atomic {
  pup[0]=1; dup_[0]=1;
#if NP>1
  pup[1]=1;
#endif
#if ND>1
  dup_[1]=1;
#endif
  run R(); run P(0); run D(0);
#if NP>1
  run P(1);
#endif
#if ND>1
  run D(1);
#endif
  run Env() } }
